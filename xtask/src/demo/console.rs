//! Lines of progress, each with the time since the start.

use std::time::Instant;

/// Where the demo says what it does.
pub struct Console {
    start: Instant,
}

impl Console {
    /// Time starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// One line.
    pub fn say(&self, topic: &str, text: &str) {
        println!("{:6.1} s  {topic:<10} {text}", self.start.elapsed().as_secs_f64());
    }
}
