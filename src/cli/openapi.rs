//! `usage-proxy openapi`: the description of the API, for whoever generates a client.

use super::{CliError, print_line};
use crate::api;

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy openapi > openapi.json

It is what /openapi.json serves where everybody may call; where callers are told apart, a running
service says so in its own.";

pub(super) fn run() -> Result<(), CliError> {
    print_line(api::openapi_document().map_err(CliError::other)?)
}
