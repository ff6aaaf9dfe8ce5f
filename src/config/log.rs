/// `log.requests`: which requests get a line in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestLog {
    /// Every one.
    #[default]
    All,
    /// Those answered with 4xx or 5xx, and slow ones.
    Problems,
    /// None.
    Off,
}
