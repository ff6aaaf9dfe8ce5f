use super::{CustomerId, ProcessedDate};

/// Data that Partner Center is asked for. The upstream call, the cache key and the key of
/// concurrent requests follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A customer's usage of the newest processed date, from the call whose answer has the native
    /// form.
    InsightsUsage(CustomerId),
    /// A customer's usage of a processed date, or of the newest, from the call that knows dates.
    CommercialUsage(CustomerId, Option<ProcessedDate>),
    /// The usage of all customers of a processed date, or each service's newest. It is never cached as
    /// one answer.
    FleetUsage(Option<ProcessedDate>),
    /// The newest processed date of any customer, without the usage.
    FleetDate,
    /// The licenses that a customer bought, and how many of them are deployed.
    Deployment(CustomerId),
    /// The partner's customers.
    Customers,
    /// Usage, over all customers.
    PartnerUsage,
    /// Deployment, over all customers.
    PartnerDeployment,
}

/// One of the Partner Center calls that we make.
///
/// See [insights](https://learn.microsoft.com/partner-center/developer/get-customer-licenses-usage-information),
/// [commercial](https://learn.microsoft.com/partner-center/developer/get-licenses-usage-information),
/// [customers](https://learn.microsoft.com/partner-center/developer/get-a-list-of-customers)
/// and [the others](https://learn.microsoft.com/partner-center/developer/analytics-resources).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum UpstreamApi {
    /// One customer's usage, the newest processed data only; its answer has the native form.
    Insights,
    /// Rows of usage of any customer for any processed date.
    Commercial,
    /// The partner's customers.
    Customers,
    /// The licenses that one customer bought, and how many of them are deployed.
    Deployment,
    /// Usage, over all customers.
    PartnerUsage,
    /// Deployment, over all customers.
    PartnerDeployment,
}

// === impl Resource ===

impl Resource {
    /// A customer's usage of the newest processed date, from this call of the
    /// [two](UpstreamApi::OF_USAGE).
    pub fn newest_usage(customer: CustomerId, api: UpstreamApi) -> Self {
        if api == UpstreamApi::Commercial {
            Self::CommercialUsage(customer, None)
        } else {
            Self::InsightsUsage(customer)
        }
    }

    /// A customer's usage of a processed date.
    pub fn dated_usage(customer: CustomerId, date: ProcessedDate) -> Self {
        Self::CommercialUsage(customer, Some(date))
    }

    /// The customer; `None` for the partner's own data.
    pub fn customer(self) -> Option<CustomerId> {
        match self {
            Self::InsightsUsage(customer)
            | Self::CommercialUsage(customer, _)
            | Self::Deployment(customer) => Some(customer),
            Self::FleetUsage(_)
            | Self::FleetDate
            | Self::Customers
            | Self::PartnerUsage
            | Self::PartnerDeployment => None,
        }
    }

    /// The processed date; `None` for the newest.
    pub fn date(self) -> Option<ProcessedDate> {
        match self {
            Self::CommercialUsage(_, date) | Self::FleetUsage(date) => date,
            Self::InsightsUsage(_)
            | Self::FleetDate
            | Self::Deployment(_)
            | Self::Customers
            | Self::PartnerUsage
            | Self::PartnerDeployment => None,
        }
    }

    /// The upstream call that answers it.
    pub fn api(self) -> UpstreamApi {
        match self {
            Self::InsightsUsage(_) => UpstreamApi::Insights,
            Self::CommercialUsage(..) | Self::FleetUsage(_) | Self::FleetDate => {
                UpstreamApi::Commercial
            }
            Self::Deployment(_) => UpstreamApi::Deployment,
            Self::Customers => UpstreamApi::Customers,
            Self::PartnerUsage => UpstreamApi::PartnerUsage,
            Self::PartnerDeployment => UpstreamApi::PartnerDeployment,
        }
    }
}

// === impl UpstreamApi ===

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

    /// The calls for a customer's usage: either can be its source.
    pub const OF_USAGE: [Self; 2] = [Self::Insights, Self::Commercial];

    /// The name in configuration, logs and metric labels.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns whether it returns a customer's usage. That of an older date is worth caching, since
    /// it can be asked for by its date.
    pub const fn tells_usage(self) -> bool {
        matches!(self, Self::Insights | Self::Commercial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_is_at_its_discriminant() {
        for (index, api) in UpstreamApi::ALL.into_iter().enumerate() {
            assert_eq!(api as usize, index, "{api:?}");
        }
    }
}
