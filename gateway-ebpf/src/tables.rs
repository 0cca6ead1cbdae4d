//! The maps, and the look-ups and counters over them.

use core::net::IpAddr;

use aya_ebpf::{
    bindings::xdp_action,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, XskMap, lpm_trie::Key},
};
use gateway_ebpf::{
    Reason,
    layout::{
        COUNTER_COUNT, Interface, MAX_ALLOWED_IPS, MAX_INTERFACES, MAX_LOCAL_ADDRESSES, SOCKET_COUNT,
        Settings, counter_index, socket_index,
    },
    steer::Tables,
};

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static INTERFACES: HashMap<u32, Interface> = HashMap::with_max_entries(MAX_INTERFACES, 0);
#[map]
static LOCAL_IPV4: HashMap<[u8; 4], u8> = HashMap::with_max_entries(MAX_LOCAL_ADDRESSES, 0);
#[map]
static LOCAL_IPV6: HashMap<[u8; 16], u8> = HashMap::with_max_entries(MAX_LOCAL_ADDRESSES, 0);
#[map]
static ALLOWED_IPV4: LpmTrie<[u8; 4], u8> = LpmTrie::with_max_entries(MAX_ALLOWED_IPS, 0);
#[map]
static ALLOWED_IPV6: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(MAX_ALLOWED_IPS, 0);
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(SOCKET_COUNT, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_COUNT, 0);

/// Look-ups in the maps above.
pub struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn settings(&self) -> Settings {
        SETTINGS.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn is_local(&self, address: &IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => LOCAL_IPV4.get_ptr(address.octets()).is_some(),
            IpAddr::V6(address) => LOCAL_IPV6.get_ptr(address.octets()).is_some(),
        }
    }

    #[inline(always)]
    fn is_allowed(&self, address: &IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => ALLOWED_IPV4.get(Key::new(32, address.octets())).is_some(),
            IpAddr::V6(address) => ALLOWED_IPV6.get(Key::new(128, address.octets())).is_some(),
        }
    }
}

/// The settings of an interface; `None` while the program is attached to one that was never set up.
#[inline(always)]
pub fn interface(index: u32) -> Option<&'static Interface> {
    // SAFETY: a concurrent update replaces the element, it never writes in place (htab_map_update_elem in
    // kernel/bpf/hashtab.c), and a replaced element stays readable until this invocation ends (RCU).
    unsafe { INTERFACES.get(index) }
}

/// Asks the kernel to put the frame into the socket of this slot and queue, or to pass it on.
#[inline(always)]
pub fn redirect(slot: u32, queue: u32) -> u32 {
    let Some(index) = socket_index(slot, queue) else { return xdp_action::XDP_PASS };
    // The flags are the action to return when there is no socket.
    SOCKETS.redirect(index, u64::from(xdp_action::XDP_PASS)).unwrap_or(xdp_action::XDP_PASS)
}

/// Counts one frame.
#[inline(always)]
pub fn count(slot: u32, reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(counter_index(slot, reason)) {
        // SAFETY: the element is this CPU's own, an XDP program is not interrupted by another on its CPU,
        // and the pointer is valid until the program returns.
        unsafe { *counter += 1 };
    }
}
