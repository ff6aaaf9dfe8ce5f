//! `usage-proxy openapi`: the description of the API, for whoever generates a client.

use super::{CliError, print_line};
use crate::api;

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy openapi > openapi.json

It prints what /openapi.json serves if everybody may call. A service that identifies its callers \
describes that in its own.";

pub(super) fn run() -> Result<(), CliError> {
    print_line(api::OPENAPI_DOCUMENT.trim_end())
}
