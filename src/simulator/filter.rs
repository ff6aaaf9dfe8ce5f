//! The `filter` parameter of the commercial call: `field eq 'value'` and `ne`, joined by `and`
//! and `or`, `and` binding tighter, in parentheses where wanted.

mod parser;

use uuid::Uuid;

use super::fleet::FleetRow;

/// A condition on rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Compare(Comparison),
    All(Vec<Filter>),
    Any(Vec<Filter>),
}

/// `field eq 'value'`, or `ne`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Comparison {
    field: Field,
    operator: Operator,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
}

/// The fields that Microsoft's reference lists as filterable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    WorkloadCode,
    WorkloadName,
    ServiceCode,
    ServiceName,
    Channel,
    CustomerTenantId,
    CustomerName,
    ProductId,
    ProductName,
}

/// Why a filter cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    #[error("unknown field '{0}' in filter")]
    UnknownField(String),
    #[error("unknown operator '{0}' in filter: expected eq or ne")]
    UnknownOperator(String),
    #[error("filter has an unterminated string")]
    UnterminatedString,
    #[error("filter is nested more than {} deep", parser::DEEPEST)]
    TooDeep,
    #[error("filter has {found} where {expected} was expected")]
    Unexpected {
        found: String,
        expected: &'static str,
    },
}

// === impl Filter ===

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    ///
    /// A [`FilterError`] that names what could not be read.
    pub(super) fn parse(text: &str) -> Result<Self, FilterError> {
        parser::parse(text)
    }

    /// Whether `row` satisfies the condition.
    pub(super) fn matches(&self, row: &FleetRow<'_>) -> bool {
        match self {
            Self::Compare(comparison) => comparison.matches(row),
            Self::All(parts) => parts.iter().all(|part| part.matches(row)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(row)),
        }
    }

    /// The one customer that every matching row belongs to, where the filter says so plainly.
    pub(super) fn customer(&self) -> Option<Uuid> {
        match self {
            Self::Compare(comparison) => comparison.customer(),
            Self::All(parts) => parts.iter().find_map(Self::customer),
            Self::Any(_) => None,
        }
    }
}

// === impl Comparison ===

impl Comparison {
    fn matches(&self, row: &FleetRow<'_>) -> bool {
        let equal = match self.field {
            Field::WorkloadCode => row.workload_code == self.value,
            Field::WorkloadName => row.workload_name == self.value,
            Field::ServiceCode => row.service_code == self.value,
            Field::ServiceName => row.service_name == self.value,
            Field::Channel => row.channel == self.value,
            Field::CustomerTenantId => self.id() == Some(row.customer_id),
            Field::CustomerName => row.customer_name == self.value,
            Field::ProductId => self.id() == Some(row.product_id),
            Field::ProductName => row.product_name == self.value,
        };
        equal == (self.operator == Operator::Equal)
    }

    fn customer(&self) -> Option<Uuid> {
        let names_one = self.field == Field::CustomerTenantId && self.operator == Operator::Equal;
        names_one.then(|| self.id()).flatten()
    }

    /// GUIDs compare without regard to case.
    fn id(&self) -> Option<Uuid> {
        Uuid::try_parse(&self.value).ok()
    }
}

// === impl Field ===

impl Field {
    fn parse(name: &str) -> Result<Self, FilterError> {
        match name {
            "workloadCode" => Ok(Self::WorkloadCode),
            "workloadName" => Ok(Self::WorkloadName),
            "serviceCode" => Ok(Self::ServiceCode),
            "serviceName" => Ok(Self::ServiceName),
            "channel" => Ok(Self::Channel),
            "customerTenantId" => Ok(Self::CustomerTenantId),
            "customerName" => Ok(Self::CustomerName),
            "productId" => Ok(Self::ProductId),
            "productName" => Ok(Self::ProductName),
            unknown => Err(FilterError::UnknownField(unknown.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::fleet::{CustomerFleet, DOCUMENTED_CUSTOMER, DOCUMENTED_DATE, RequestedDate},
        *,
    };

    /// How many of the documented customer's five rows a filter lets through.
    fn matching(filter: &str) -> usize {
        let fleet = CustomerFleet::new(1, 0, 0);
        let filter = Filter::parse(filter).unwrap();
        fleet
            .customer(DOCUMENTED_CUSTOMER)
            .unwrap()
            .rows(RequestedDate::Newest, DOCUMENTED_DATE)
            .filter(|row| filter.matches(row))
            .count()
    }

    #[test]
    fn and_binds_tighter_than_or_and_parentheses_bind_tighter_still() {
        let plan = "productName eq 'EXCHANGE ONLINE (PLAN 1)'";

        assert_eq!(matching("workloadName eq 'Exchange'"), 3);
        assert_eq!(matching("workloadName ne 'Exchange'"), 2);
        assert_eq!(
            matching(&format!(
                "workloadCode eq 'SFB' or {plan} and workloadCode eq 'EXO'"
            )),
            2
        );
        assert_eq!(
            matching(&format!(
                "(workloadCode eq 'SFB' or {plan}) and workloadCode eq 'EXO'"
            )),
            1
        );
    }

    #[test]
    fn guids_compare_without_regard_to_case() {
        let id = DOCUMENTED_CUSTOMER.to_string();

        assert_eq!(matching(&format!("customerTenantId eq '{id}'")), 5);
        assert_eq!(
            matching(&format!("customerTenantId eq '{}'", id.to_uppercase())),
            5
        );
        assert_eq!(matching("customerTenantId eq 'nobody'"), 0);
    }

    #[test]
    fn a_quote_in_a_value_is_written_twice() {
        let filter = Filter::parse("customerName eq 'O''Brien'").unwrap();

        let Filter::Compare(comparison) = filter else {
            panic!("{filter:?} is no comparison");
        };
        assert_eq!(comparison.value, "O'Brien");
    }

    #[test]
    fn a_filter_for_one_customer_is_recognised() {
        let one = format!("channel eq 'reseller' and customerTenantId eq '{DOCUMENTED_CUSTOMER}'");
        let either =
            format!("channel eq 'reseller' or customerTenantId eq '{DOCUMENTED_CUSTOMER}'");

        assert_eq!(
            Filter::parse(&one).unwrap().customer(),
            Some(DOCUMENTED_CUSTOMER)
        );
        assert_eq!(Filter::parse(&either).unwrap().customer(), None);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let deep = format!("{}channel eq 'x'", "(".repeat(40));
        for (filter, named) in [
            ("colour eq 'red'", "unknown field 'colour'"),
            ("channel gt 'a'", "unknown operator 'gt'"),
            ("channel eq 'a", "unterminated string"),
            ("channel eq a", "where a string in single quotes"),
            ("(channel eq 'a'", "a closing parenthesis"),
            ("channel eq 'a' channel eq 'b'", "and, or or the end"),
            ("", "its end where a field"),
            (deep.as_str(), "more than 32 deep"),
        ] {
            let error = Filter::parse(filter).unwrap_err().to_string();

            assert!(error.contains(named), "{filter}: {error}");
        }
    }
}
