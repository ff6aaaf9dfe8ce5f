//! The faults that the simulator can be given.

use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value};
use strum::VariantNames;

use super::record::SimulatedApi;

/// Faults on demand; the default is none.
///
/// As JSON and as `KEY=VALUE` the keys are the names of the fields. All but the `token_` ones,
/// `sign_in_error` and the `_rotation` ones affect API calls: those that `api` names, and no more of
/// them than `times`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// The API calls that are affected.
    pub api: FaultScope,
    /// The page of all customers' rows that is affected, from 1 on; no other call is. All calls if
    /// absent.
    pub page: Option<usize>,
    /// The number of API calls that are still affected; all if absent. Counts down as calls arrive.
    pub times: Option<u64>,
    /// Added before an answer; milliseconds in JSON.
    #[serde(with = "milliseconds")]
    pub latency: Duration,
    /// Answered instead of data, with an error body: 200 to 599.
    #[serde(with = "status_code")]
    pub status: Option<StatusCode>,
    /// `code` of the error body that goes with `status`.
    pub code: Option<String>,
    /// `description` of the error body that goes with `status`.
    pub description: Option<String>,
    /// Sent as `Retry-After` with `status`, with a failure of the token endpoint and when throttling: seconds or an HTTP date. In JSON, text
    /// or a number of seconds.
    #[serde(deserialize_with = "text_or_seconds")]
    pub retry_after: Option<String>,
    /// Throttles more calls than this in a minute. A rejected call counts too.
    pub calls_per_minute: Option<u64>,
    /// 401 with code 900421: the token carries no proof of multi-factor authentication.
    pub mfa_required: bool,
    /// `isMfaCompliant: false`, where it is asked for, and no refusal.
    pub mfa_missing: bool,
    /// A fault of the body.
    pub body: Option<BodyFault>,
    /// Size of [`BodyFault::Oversized`] and [`BodyFault::GzipBomb`] in bytes, once inflated; 64 MiB if
    /// absent.
    pub body_bytes: Option<usize>,
    /// Announces the whole body, sends half of it, and closes the connection.
    pub close_mid_body: bool,
    /// A UTF-8 byte-order mark before every API body.
    pub bom: bool,
    /// `links.next.uri` of every commercial answer, whether more rows follow or not.
    pub next_link: Option<String>,
    /// Answered by the token endpoint instead of a token.
    #[serde(with = "status_code")]
    pub token_status: Option<StatusCode>,
    /// `error` of the token endpoint's answer, such as `invalid_grant`; 400 unless `token_status`
    /// says otherwise.
    pub token_error: Option<String>,
    /// `error` that a sign-in ends with instead of a code, such as `access_denied`.
    pub sign_in_error: Option<String>,
    /// Rejects a refresh token that was redeemed before.
    pub strict_rotation: bool,
    /// Rejects a refresh token as soon as a token that was issued for it is used: the refresh token
    /// that replaced it, or the access token.
    ///
    /// Until then it stays valid: the client may never have seen the answer. Under `strict_rotation`
    /// no client could survive a crash between that answer and its own disk.
    pub graceful_rotation: bool,
}

/// The API calls that faults affect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum FaultScope {
    /// Every API call.
    #[default]
    All,
    /// The insights call.
    Insights,
    /// The commercial call, for one customer or all.
    Commercial,
    /// The pages of all customers' rows, from the commercial call.
    FleetPage,
    /// The check for a newer date, by the commercial call.
    FleetCheck,
    /// The list of customers.
    Customers,
    /// The deployment call.
    Deployment,
    /// Usage, over all customers.
    PartnerUsage,
    /// Deployment, over all customers.
    PartnerDeployment,
}

/// A fault of a body; the answer is otherwise well-formed HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyFault {
    /// JSON that ends in the middle.
    Truncated,
    /// An HTML page.
    Html,
    /// Nothing.
    Empty,
    /// Bytes that are not even text.
    Garbage,
    /// A small gzip body that inflates to `body_bytes`; only for clients that accept gzip.
    GzipBomb,
    /// The right JSON, followed by white space up to `body_bytes`.
    Oversized,
    /// One more row, of another customer, if there are rows at all.
    ForeignCustomer,
    /// A first row without counts and without its date.
    MissingFields,
    /// A first row with a negative number of seats in use.
    NegativeCounts,
    /// A first row with more seats than a 64-bit signed number can hold.
    HugeCounts,
    /// A `totalCount` that is one more than there are rows.
    WrongTotal,
    /// The rows of the page before, in a page of the commercial call.
    RepeatedPage,
    /// Rows that begin one row early, in a page of the commercial call: a row was inserted before it.
    ShiftedRows,
    /// A `totalCount` of the commercial call that is one less than on other pages.
    ShrunkTotal,
    /// The first half of the rows of the commercial call, and no link to the next page.
    CutShort,
}

// === impl Faults ===

impl Faults {
    /// Sets one fault by its key, as `--fault KEY=VALUE` has it.
    ///
    /// # Errors
    ///
    /// A sentence that names the key, if it is unknown or cannot have this value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let text = Value::from(value);
        let typed = serde_json::from_str(value).unwrap_or_else(|_| text.clone());
        let with = |value| self.patched(Map::from_iter([(key.to_owned(), value)]));
        *self = with(typed)
            .or_else(|error| with(text).map_err(|_| error))
            .map_err(|error| format!("fault {error}"))?;
        Ok(())
    }

    /// Returns these faults with the fields of `patch` replaced; `null` removes one.
    ///
    /// # Errors
    ///
    /// A sentence that says which field is unknown or has a value that it cannot have.
    pub(super) fn patched(&self, patch: Map<String, Value>) -> Result<Self, String> {
        let mut fields = match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) | Err(_) => Map::new(),
        };
        for (key, value) in patch {
            match value {
                Value::Null if fields.contains_key(&key) => fields.remove(&key),
                value => fields.insert(key, value),
            };
        }
        serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| error.to_string())
    }

    /// Takes the faults of a call of `api` that arrives now, which `times` counts. `page` is that of all
    /// customers' rows.
    pub(super) fn take_applicable(&mut self, api: SimulatedApi, page: Option<usize>) -> Self {
        let is_included = self.api.includes(api) && (self.page.is_none() || self.page == page);
        if !is_included || !take_remaining(&mut self.times) {
            return Self::default();
        }
        self.clone()
    }

    /// Returns the failure of a token request, if any.
    pub(super) fn token_failure(&self) -> Option<(StatusCode, String)> {
        if self.token_status.is_none() && self.token_error.is_none() {
            return None;
        }
        let status = self.token_status.unwrap_or(StatusCode::BAD_REQUEST);
        let is_transient = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        let default = if is_transient {
            "temporarily_unavailable"
        } else {
            "invalid_grant"
        };
        let error = self.token_error.clone();
        Some((status, error.unwrap_or_else(|| default.to_owned())))
    }
}

/// Counts one down. Returns `false` if none are left.
fn take_remaining(times: &mut Option<u64>) -> bool {
    match times {
        None => true,
        Some(0) => false,
        Some(left) => {
            *left -= 1;
            true
        }
    }
}

// === impl FaultScope ===

impl FaultScope {
    fn includes(self, api: SimulatedApi) -> bool {
        match self {
            Self::All => api.is_partner_center(),
            Self::Insights => api == SimulatedApi::Insights,
            Self::Commercial => matches!(
                api,
                SimulatedApi::Commercial | SimulatedApi::FleetPage | SimulatedApi::FleetCheck
            ),
            Self::FleetPage => api == SimulatedApi::FleetPage,
            Self::FleetCheck => api == SimulatedApi::FleetCheck,
            Self::Customers => api == SimulatedApi::Customers,
            Self::Deployment => api == SimulatedApi::Deployment,
            Self::PartnerUsage => api == SimulatedApi::PartnerUsage,
            Self::PartnerDeployment => api == SimulatedApi::PartnerDeployment,
        }
    }
}

fn text_or_seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        Value::Number(seconds) if seconds.is_u64() => Some(seconds.to_string()),
        _ => {
            return Err(D::Error::custom(
                "expected a whole number of seconds, or text",
            ));
        }
    })
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

mod status_code {
    use http::StatusCode;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        status: &Option<StatusCode>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        status.map(|status| status.as_u16()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<StatusCode>, D::Error> {
        let Some(number) = Option::<u16>::deserialize(deserializer)? else {
            return Ok(None);
        };
        StatusCode::from_u16(number)
            .ok()
            .filter(|status| !status.is_informational() && number < 600)
            .map(Some)
            .ok_or_else(|| {
                D::Error::custom(format!("expected a status of 200 to 599, not {number}"))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_can_be_set_by_its_key() {
        let mut faults = Faults::default();

        for (key, value) in [
            ("api", "insights"),
            ("times", "2"),
            ("latency", "300"),
            ("status", "503"),
            ("code", "2032"),
            ("retry_after", "57"),
            ("calls_per_minute", "10"),
            ("mfa_required", "true"),
            ("mfa_missing", "true"),
            ("body", "gzip_bomb"),
            ("close_mid_body", "true"),
            ("token_error", "invalid_grant"),
        ] {
            faults.set(key, value).unwrap();
        }

        assert_eq!(faults.api, FaultScope::Insights);
        assert_eq!(faults.latency, Duration::from_millis(300));
        assert_eq!(faults.status, Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(faults.code.as_deref(), Some("2032"));
        assert_eq!(faults.retry_after.as_deref(), Some("57"));
        assert_eq!(faults.body, Some(BodyFault::GzipBomb));
        assert!(faults.mfa_required && faults.mfa_missing && faults.close_mid_body);
    }

    #[test]
    fn an_invalid_fault_is_named_and_changes_nothing() {
        let mut faults = Faults::default();

        for (key, value, named) in [
            ("latncy", "300", "latncy"),
            ("latency", "soon", "latency: invalid type"),
            ("status", "99", "status: expected a status of 200 to 599"),
            ("body", "green", "green"),
        ] {
            let error = faults.set(key, value).unwrap_err();

            assert!(error.contains(named), "{error}");
        }
        assert_eq!(faults, Faults::default());
    }

    #[test]
    fn null_removes_a_fault() {
        let mut faults = Faults::default();
        faults.set("status", "500").unwrap();

        let patch = Map::from_iter([("status".to_owned(), Value::Null)]);

        assert_eq!(faults.patched(patch).unwrap(), Faults::default());
    }

    #[test]
    fn times_counts_only_calls_in_scope() {
        let mut faults = Faults {
            api: FaultScope::Insights,
            times: Some(1),
            bom: true,
            ..Faults::default()
        };

        let mut has_mark = |api| faults.take_applicable(api, None).bom;

        assert!(!has_mark(SimulatedApi::Commercial));
        assert!(has_mark(SimulatedApi::Insights));
        assert!(!has_mark(SimulatedApi::Insights));
    }

    #[test]
    fn a_fault_of_a_page_leaves_other_calls_alone() {
        let mut faults = Faults {
            page: Some(2),
            bom: true,
            ..Faults::default()
        };

        let mut has_mark = |api, page| faults.take_applicable(api, page).bom;

        assert!(!has_mark(SimulatedApi::FleetPage, Some(1)));
        assert!(has_mark(SimulatedApi::FleetPage, Some(2)));
        assert!(!has_mark(SimulatedApi::Commercial, None));
    }
}
