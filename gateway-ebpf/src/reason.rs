//! Why a frame was steered or left to the kernel: every frame gets exactly one reason, and each has a counter.

/// Declares the reasons once, so that the number, the name and the meaning cannot drift apart.
macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// The fate of one frame, counted per CPU and per interface.
        ///
        /// Only [`Data`](Reason::Data) and [`Inner`](Reason::Inner) reach an AF_XDP socket;
        /// every other reason means that the frame goes on to the kernel's network stack unchanged.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[$doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// How many reasons there are: the counters of one interface.
            pub const COUNT: usize = Self::ALL.len();

            /// Names for status output and metrics, in the order of the counters.
            pub const NAMES: [&'static str; Self::COUNT] = [$($name,)+];
        }
    };
}

reasons! {
    /// A WireGuard data packet for us: steered to the socket of its queue.
    Data = "data",
    /// A WireGuard data packet for us, but no socket is bound to its queue.
    DataWithoutSocket = "data_without_socket",
    /// A packet for an address behind the tunnel: steered to the socket of its queue.
    Inner = "inner",
    /// A packet for an address behind the tunnel, but no socket is bound to its queue.
    InnerWithoutSocket = "inner_without_socket",
    /// A handshake message or cookie reply of the right length to our port: the control plane takes it.
    Handshake = "handshake",
    /// To our port, but the first four bytes are no WireGuard message type.
    UnknownMessage = "unknown_message",
    /// To our port, but the length is not one that its message type can have.
    MessageLength = "message_length",
    /// UDP to one of our addresses on another port.
    OtherPort = "other_port",
    /// UDP to our port on an address that is not ours.
    OtherAddress = "other_address",
    /// The UDP length disagrees with the length of the IP packet.
    UdpLength = "udp_length",
    /// An IP protocol that is not UDP, on an interface that has only the uplink role.
    NotUdp = "not_udp",
    /// A source address that no host may have: unspecified, loopback, multicast, reserved.
    MartianSource = "martian_source",
    /// The frame ends before the headers do.
    Truncated = "truncated",
    /// Carries a VLAN tag.
    Vlan = "vlan",
    /// Neither IPv4 nor IPv6: ARP, LLDP and the rest.
    NotIp = "not_ip",
    /// The IP version contradicts the EtherType, or an IPv4 header is shorter than 20 bytes.
    IpHeader = "ip_header",
    /// The IP length is shorter than the headers or longer than the frame.
    IpLength = "ip_length",
    /// An IPv4 header with options.
    IpOptions = "ip_options",
    /// An IPv4 fragment.
    Fragment = "fragment",
    /// An IPv6 extension header (fragments included).
    ExtensionHeader = "extension_header",
    /// The destination MAC address is not that of the interface.
    OtherMac = "other_mac",
    /// To one of the host's own addresses.
    LocalDestination = "local_destination",
    /// A multicast, broadcast, loopback or link-local address, which a router does not forward.
    NotForwardable = "not_forwardable",
    /// No peer's allowed IPs contain the destination.
    NotAllowed = "not_allowed",
    /// TTL or hop limit is used up: the kernel answers with ICMP time exceeded.
    HopLimit = "hop_limit",
    /// Longer than the tunnel MTU: the kernel fragments it or answers with ICMP packet too big.
    TooBig = "too_big",
}

impl Reason {
    /// The name in status output and metrics: lower case, words joined by underscores.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Whether a frame with this reason is to go into a socket.
    pub const fn is_steered(self) -> bool {
        matches!(self, Self::Data | Self::Inner)
    }

    /// The reason to count when there is no socket to steer to.
    #[must_use]
    pub const fn without_socket(self) -> Self {
        match self {
            Self::Data => Self::DataWithoutSocket,
            Self::Inner => Self::InnerWithoutSocket,
            other => other,
        }
    }
}
