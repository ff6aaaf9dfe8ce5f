//! Reads the values of query parameters that several resources have.

use std::{
    collections::{BTreeSet, HashSet},
    num::NonZeroUsize,
    str::FromStr,
};

use strum::VariantArray;

use super::{duplicate_parameter, invalid_parameter, unknown_parameter};
use crate::{
    domain::{Caller, CustomerId, Portfolio},
    problem::{Problem, ProblemKind},
    render::CsvSeparator,
    text::excerpt,
};

/// Reads a query that has only parameters that apply, each at most once but for `repeatable`, and passes
/// their values to `set`.
pub(in crate::api) fn read_each<P>(
    query: Option<&str>,
    applies: impl Fn(&P) -> bool,
    repeatable: P,
    mut set: impl FnMut(P, &str) -> Result<(), Problem>,
) -> Result<(), Problem>
where
    P: Copy + Ord + FromStr + VariantArray,
    &'static str: From<P>,
{
    let mut seen = BTreeSet::new();
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let Some(parameter) = name.parse().ok().filter(&applies) else {
            let known = P::VARIANTS.iter().copied().filter(&applies);
            let names: Vec<&str> = known.map(Into::into).collect();
            let expected = format!("expected {}, or none", names.join(", "));
            return Err(unknown_parameter(&name, &expected));
        };
        if !seen.insert(parameter) && parameter != repeatable {
            return Err(duplicate_parameter(&name));
        }
        set(parameter, &value)?;
    }
    Ok(())
}

/// Returns the customer of the parameter `customer`.
pub(in crate::api) fn customer(value: &str) -> Result<CustomerId, Problem> {
    CustomerId::parse(value).map_err(|invalid| {
        let detail = format!("customer is {:?}; {invalid}", excerpt(value));
        Problem::new(ProblemKind::CustomerId, detail)
    })
}

/// Returns the text of a parameter that is a name.
pub(in crate::api) fn name(parameter: &str, value: &str) -> Result<String, Problem> {
    if value.is_empty() {
        let expected = "expected a name, or leave it out";
        return Err(invalid_parameter(parameter, value, expected));
    }
    Ok(value.to_owned())
}

/// Returns the customers of a group of the portfolio. To a caller that may read none of them there is
/// no such group.
pub(in crate::api) fn group<'a>(
    name: &str,
    portfolio: &'a Portfolio,
    caller: &Caller,
) -> Result<&'a HashSet<CustomerId>, Problem> {
    let group = portfolio.group(name).filter(|customers| {
        let mut customers = customers.iter();
        caller.may_read_all() || customers.any(|customer| caller.may_read(*customer))
    });
    group.ok_or_else(|| {
        let expected = "expected the name of a group of the portfolio with a customer that the \
                        caller may read";
        invalid_parameter("group", name, expected)
    })
}

/// Reads a number without a sign.
pub(in crate::api) fn digits<N: FromStr>(value: &str) -> Option<N> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| is_plain)
}

/// Returns the parameter `limit`, up to a maximum.
pub(in crate::api) fn limit(value: &str, max: NonZeroUsize) -> Result<NonZeroUsize, Problem> {
    let limit = digits(value).filter(|limit| *limit <= max);
    limit.ok_or_else(|| {
        let expected = format!("expected a whole number from 1 to {max}");
        invalid_parameter("limit", value, expected)
    })
}

/// Returns the parameter `separator` of a table.
pub(in crate::api) fn separator(value: &str) -> Result<CsvSeparator, Problem> {
    match value {
        "comma" => Ok(CsvSeparator::Comma),
        "semicolon" => Ok(CsvSeparator::Semicolon),
        other => {
            let expected = "expected comma or semicolon";
            Err(invalid_parameter("separator", other, expected))
        }
    }
}
