//! What the machine has: interfaces with their queues, NUMA nodes and the CPUs this process may use.
//!
//! Everything is read once at start into plain numbers; nothing here is asked again while packets flow. What
//! changes later (addresses, routes, neighbours) belongs to the control plane.

pub mod cores;
pub mod cpu;
pub mod ethtool;
pub mod interface;
pub mod netdev;
pub mod netlink;
pub mod pin;

pub use cores::{CoreList, assign, choose};
pub use cpu::Cpu;
pub use interface::{Interface, InterfaceError, Queues};

/// CPUs with this number or a higher one cannot be used: `cpu_set_t` of the C library ends here.
pub const CPU_NUMBER_MAX: u32 = 1023;

/// The parts of the machine one tunnel is concerned with.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The interfaces asked for that exist.
    pub interfaces: Vec<Interface>,
    /// CPUs the process may run on.
    pub cpus: Vec<Cpu>,
}

impl Machine {
    /// Reads `interfaces` (names that do not exist are left out, so that the plan can say so) and the CPUs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses netlink or the affinity of this process.
    pub fn read<'a>(interfaces: impl IntoIterator<Item = &'a str>) -> Result<Self, InterfaceError> {
        let cpus = cpu::read().map_err(|source| InterfaceError::Cpus { source })?;
        let mut found: Vec<Interface> = Vec::new();
        for name in interfaces {
            if found.iter().any(|known| known.name == name) {
                continue;
            }
            match Interface::read(name) {
                Ok(interface) => found.push(interface),
                Err(InterfaceError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { interfaces: found, cpus })
    }

    /// The interface called `name`, when it exists.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }
}
