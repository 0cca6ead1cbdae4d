//! Single netlink requests, answered before the call returns. For use at start and in `wgx check`, where an
//! event loop would only be in the way; what must be followed is `control`'s, over rtnetlink.

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, NlaBuffer, NlasIterator, ParseableParametrized,
};
use netlink_packet_generic::{
    GenlFamily, GenlHeader, GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_GENERIC, NETLINK_ROUTE},
};

/// Asks for the link called `name`.
///
/// # Errors
///
/// `ENODEV` when there is none; whatever the kernel or the socket says otherwise.
pub fn link(name: &str) -> io::Result<LinkMessage> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::IfName(name.to_owned()));
    answered_link(request)
}

/// Asks for the link with this index in our network namespace.
///
/// # Errors
///
/// As [`link`].
pub fn link_by_index(index: u32) -> io::Result<LinkMessage> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    answered_link(request)
}

fn answered_link(request: LinkMessage) -> io::Result<LinkMessage> {
    let mut socket = open(NETLINK_ROUTE)?;
    match exchange(&mut socket, RouteNetlinkMessage::GetLink(request))? {
        RouteNetlinkMessage::NewLink(link) => Ok(link),
        other => Err(io::Error::other(format!("asked for a link, the kernel answered {other:?}"))),
    }
}

/// A generic netlink family of the kernel.
pub struct Family {
    socket: Socket,
    id: u16,
}

impl Family {
    /// Looks `name` up.
    ///
    /// # Errors
    ///
    /// `ENOENT` when this kernel has no such family.
    pub fn open(name: &str) -> io::Result<Self> {
        let mut socket = open(NETLINK_GENERIC)?;
        let request = GenlMessage::from_payload(GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(name.to_owned())],
        });
        let reply: GenlMessage<GenlCtrl> = exchange(&mut socket, request)?;
        let id = reply.payload.nlas.iter().find_map(|attribute| match attribute {
            GenlCtrlAttrs::FamilyId(id) => Some(*id),
            _ => None,
        });
        let id = id.ok_or_else(|| io::Error::other(format!("the kernel gave no id for family {name:?}")))?;
        Ok(Self { socket, id })
    }

    /// Sends `command` with `attributes` and returns the attributes of the answer as bytes.
    ///
    /// # Errors
    ///
    /// What the kernel answers: `EOPNOTSUPP` for a driver without the operation, `ENODEV` for no interface.
    pub fn call(&mut self, command: u8, attributes: &[DefaultNla]) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; attributes.buffer_len()];
        attributes.emit(&mut bytes);
        let payload = Raw { command, attributes: bytes };
        let request = GenlMessage::new(GenlHeader { cmd: command, version: 1 }, payload, self.id);
        let reply: GenlMessage<Raw> = exchange(&mut self.socket, request)?;
        Ok(reply.payload.attributes)
    }
}

/// The attributes of `bytes` as (type without flags, value); stops at the first malformed one.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    NlasIterator::new(bytes).map_while(Result::ok).map_while(move |attribute: NlaBuffer<&[u8]>| {
        // The iterator lends values for the length of one step; the same bytes in `rest` live as long as ours.
        let length = usize::from(attribute.length());
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((attribute.kind(), value))
    })
}

/// The first attribute of type `kind`.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// An unsigned integer of 4 or 8 bytes in host order, as the kernel's `NLA_U32`, `NLA_U64` and `NLA_UINT`.
pub fn unsigned(value: &[u8]) -> Option<u64> {
    match value.len() {
        4 => Some(u64::from(u32::from_ne_bytes(value.try_into().ok()?))),
        8 => Some(u64::from_ne_bytes(value.try_into().ok()?)),
        _ => None,
    }
}

fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends one request and returns the one message that answers it.
fn exchange<Q, A>(socket: &mut Socket, request: Q) -> io::Result<A>
where
    Q: NetlinkSerializable + Into<NetlinkPayload<Q>>,
    A: NetlinkDeserializable,
{
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let (reply, _) = socket.recv_from_full()?;
    match NetlinkMessage::<A>::deserialize(&reply).map_err(io::Error::other)?.payload {
        NetlinkPayload::InnerMessage(answer) => Ok(answer),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("the kernel answered a request with no message")),
    }
}

/// A message of a generic family whose attributes the caller reads.
#[derive(Clone, Debug)]
struct Raw {
    command: u8,
    attributes: Vec<u8>,
}

impl GenlFamily for Raw {
    fn family_name() -> &'static str {
        // Ids are looked up by `Family::open`; nothing asks for the name.
        ""
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Raw {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.attributes.len()].copy_from_slice(&self.attributes);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Raw {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self { command: header.cmd, attributes: bytes.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_stop_at_the_first_truncated_one() {
        let bytes = [8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 2, 0, 9, 0, 0, 0, 12, 0, 3, 0, 1];
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found, [(1, &[1, 2, 3, 4][..]), (2, &[9][..])]);
    }

    #[test]
    fn an_unsigned_of_any_other_width_is_none() {
        assert_eq!(unsigned(&7u32.to_ne_bytes()), Some(7));
        assert_eq!(unsigned(&7u64.to_ne_bytes()), Some(7));
        assert_eq!(unsigned(&[7]), None);
    }

    #[test]
    fn a_link_that_does_not_exist_is_enodev() {
        assert_eq!(link("no-such-link").unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
