//! A network namespace that the current thread lives in, and that goes when the test ends.

use std::{
    fs::File,
    os::fd::AsFd as _,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Named `wgx-test-PID-N`; libtest gives each test its own thread, so nothing else moves.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace and moves the calling thread into it.
    pub fn enter() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wgx-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        let file = File::open(format!("/run/netns/{}", namespace.name)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        ip(&["link", "set", "lo", "up"]);
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// Runs `ip` in the thread's namespace and returns what it says.
pub fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}
