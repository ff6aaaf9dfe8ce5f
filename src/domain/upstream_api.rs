/// One of the two Partner Center calls that tell license usage.
///
/// See [insights](https://learn.microsoft.com/partner-center/developer/get-customer-licenses-usage-information)
/// and [commercial](https://learn.microsoft.com/partner-center/developer/get-licenses-usage-information).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UpstreamApi {
    /// One customer, the newest processed data only; its answer has the native form.
    Insights,
    /// Rows of any customer for any processed date.
    Commercial,
}

impl UpstreamApi {
    /// Both calls, for tables that have a row for each.
    pub const ALL: [Self; 2] = [Self::Insights, Self::Commercial];

    /// The name in configuration, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insights => "insights",
            Self::Commercial => "commercial",
        }
    }
}
