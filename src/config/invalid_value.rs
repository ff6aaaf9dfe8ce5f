use std::{borrow::Cow, fmt};

/// The reason that a text is not a valid value; completes "the value …".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InvalidValue(Cow<'static, str>);

// === impl InvalidValue ===

impl From<&'static str> for InvalidValue {
    fn from(reason: &'static str) -> Self {
        Self(Cow::Borrowed(reason))
    }
}

impl From<String> for InvalidValue {
    fn from(reason: String) -> Self {
        Self(Cow::Owned(reason))
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
