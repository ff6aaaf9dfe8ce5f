use super::CustomerId;

/// Whose data an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// One customer's.
    Customer(CustomerId),
    /// The partner's own, over all of its customers.
    Partner,
}

// === impl Subject ===

impl Subject {
    /// The customer, where it is one's.
    pub fn customer(self) -> Option<CustomerId> {
        match self {
            Self::Customer(customer_id) => Some(customer_id),
            Self::Partner => None,
        }
    }
}

impl From<CustomerId> for Subject {
    fn from(customer_id: CustomerId) -> Self {
        Self::Customer(customer_id)
    }
}
