/// One of the Partner Center calls that we make.
///
/// See [insights](https://learn.microsoft.com/partner-center/developer/get-customer-licenses-usage-information),
/// [commercial](https://learn.microsoft.com/partner-center/developer/get-licenses-usage-information),
/// [customers](https://learn.microsoft.com/partner-center/developer/get-a-list-of-customers)
/// and [the others](https://learn.microsoft.com/partner-center/developer/analytics-resources).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UpstreamApi {
    /// One customer's usage, the newest processed data only; its answer has the native form.
    Insights,
    /// Rows of usage of any customer for any processed date.
    Commercial,
    /// The partner's customers.
    Customers,
    /// What one customer bought, and how much of it is deployed.
    Deployment,
    /// Usage, over all customers.
    PartnerUsage,
    /// Deployment, over all customers.
    PartnerDeployment,
}

impl UpstreamApi {
    /// Every call, for tables that have a row for each, in the order of their discriminants.
    pub const ALL: [Self; 6] = [
        Self::Insights,
        Self::Commercial,
        Self::Customers,
        Self::Deployment,
        Self::PartnerUsage,
        Self::PartnerDeployment,
    ];

    /// Those that tell a customer's usage, so that either can be its source.
    pub const OF_USAGE: [Self; 2] = [Self::Insights, Self::Commercial];

    /// The name in configuration, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insights => "insights",
            Self::Commercial => "commercial",
            Self::Customers => "customers",
            Self::Deployment => "deployment",
            Self::PartnerUsage => "partner-usage",
            Self::PartnerDeployment => "partner-deployment",
        }
    }

    /// Whether it tells a customer's usage: that of an older date is worth keeping, since it can be
    /// asked for by its date.
    pub const fn tells_usage(self) -> bool {
        matches!(self, Self::Insights | Self::Commercial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_stands_at_its_discriminant() {
        for (index, api) in UpstreamApi::ALL.into_iter().enumerate() {
            assert_eq!(api as usize, index, "{api:?}");
        }
    }
}
