//! placeholder
pub enum Skips {
    Fail,
    Report,
}
impl Skips {
    pub fn from_environment() -> Self {
        Self::Report
    }
}
pub fn run(_: Skips) -> anyhow::Result<()> {
    Ok(())
}
