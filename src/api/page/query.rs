use std::{fmt::Display, num::NonZeroU32};

use super::frame::SearchForm;
use crate::{
    api::{extract, fleet},
    domain::ProcessedDate,
    problem::{Problem, ProblemKind},
    render::{display_text, fleet::FleetSort},
    text::excerpt,
};

/// The query of the page; each parameter may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageQuery {
    /// A name, a part of one, or an id; empty for none.
    pub(super) customer: String,
    /// `None` for the newest date.
    pub(super) date: Option<ProcessedDate>,
    pub(super) today: ProcessedDate,
    /// The page of the list of customers.
    pub(super) page: NonZeroU32,
    /// The order of the list.
    pub(super) sort: FleetSort,
    /// The group that the list is cut to.
    pub(super) group: Option<String>,
}

// === impl PageQuery ===

impl PageQuery {
    pub(super) fn parse(query: Option<&str>, today: ProcessedDate) -> Result<Self, Problem> {
        let expected = "expected customer=…, date=YYYY-MM-DD, group=…, sort=… or page=…";
        let names = ["customer", "date", "page", "sort", "group"];
        let [customer, date, page, sort, group] = extract::parameters(query, names, expected)?;
        let date = date.filter(|date| !date.is_empty());
        let sort = sort.filter(|sort| !sort.is_empty());
        let date = date
            .map(|date| extract::parse_date("date", &date, today))
            .transpose()?;
        Ok(Self {
            customer: customer.unwrap_or_default().trim().to_owned(),
            date,
            today,
            page: page.map_or(Ok(NonZeroU32::MIN), |page| page_number(&page))?,
            sort: sort.map_or(Ok(FleetSort::default()), |sort| fleet::parse_sort(&sort))?,
            group: group.filter(|group| !group.is_empty()).map(Into::into),
        })
    }

    /// Returns the link to a page of the list, the first if `page` is 1.
    pub(super) fn list_link(&self, page: usize) -> String {
        let page = (page > 1).then(|| ("page", page.to_string()));
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.list_parameters().into_iter().chain(page));
        match query.finish() {
            query if query.is_empty() => "/".to_owned(),
            query => format!("/?{query}"),
        }
    }

    /// Returns the link to the same list in another order.
    pub(super) fn sorted_link(&self, sort: FleetSort) -> String {
        let sorted = Self {
            sort,
            ..self.clone()
        };
        sorted.list_link(1)
    }

    /// Returns the parameters of the list that differ from their defaults, without the page.
    pub(super) fn list_parameters(&self) -> Vec<(&'static str, String)> {
        let customer = Some(self.customer.clone()).filter(|text| !text.is_empty());
        let sort = Some(self.sort).filter(|sort| *sort != FleetSort::default());
        let parameters = [
            ("customer", customer),
            ("date", self.date.map(|date| date.to_string())),
            ("group", self.group.clone()),
            ("sort", sort.map(|sort| sort.to_string())),
        ];
        let given = parameters.into_iter();
        given
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// Returns the form with this query.
    pub(super) fn search_form(&self, suggestions: Vec<String>) -> SearchForm {
        SearchForm {
            customer: display_text(&self.customer),
            date: self.date.map_or_else(String::new, |date| date.to_string()),
            today: Some(self.today),
            suggestions,
            kept: self.kept_parameters(&["group", "sort"]),
        }
    }

    /// Returns the parameters of these names that differ from their defaults.
    pub(super) fn kept_parameters(&self, names: &[&str]) -> Vec<(&'static str, String)> {
        let mut parameters = self.list_parameters();
        parameters.retain(|(name, _)| names.contains(name));
        parameters
    }
}

// === impl SearchForm ===

impl SearchForm {
    /// Returns the form with what can be read of an invalid query, so that its sender need not type it
    /// again.
    pub(super) fn from_invalid_query(query: Option<&str>) -> Self {
        let date = typed_value(query, "date").and_then(|date| ProcessedDate::parse(&date).ok());
        Self {
            customer: typed_value(query, "customer")
                .map_or_else(String::new, |typed| excerpt(&typed).into_owned()),
            date: date.map_or_else(String::new, |date| date.to_string()),
            today: None,
            suggestions: Vec::new(),
            kept: Vec::new(),
        }
    }
}

fn page_number(text: &str) -> Result<NonZeroU32, Problem> {
    text.parse().map_err(|_| {
        Problem::new(
            ProblemKind::PageNumber,
            format!(
                "page is {:?}; expected a whole number, 1 or more",
                excerpt(text)
            ),
        )
    })
}

/// Returns the value of a field, whatever is wrong with the rest of the query.
fn typed_value(query: Option<&str>, name: &str) -> Option<String> {
    let mut parameters = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let (_, value) = parameters.find(|(found, _)| found == name)?;
    Some(display_text(&value)).filter(|typed| !typed.is_empty())
}

/// Returns the link to the newest usage of the customer in a query.
pub(super) fn newest_link(query: Option<&str>) -> Option<String> {
    let customer = typed_value(query, "customer")?;
    let customer: String = url::form_urlencoded::byte_serialize(customer.as_bytes()).collect();
    Some(customer_link(customer, None))
}

/// Returns the link to the page of a customer and a date.
pub(super) fn customer_link(customer: impl Display, date: Option<ProcessedDate>) -> String {
    match date {
        Some(date) => format!("/?customer={customer}&date={date}"),
        None => format!("/?customer={customer}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn today() -> ProcessedDate {
        ProcessedDate::parse("2026-11-22").unwrap()
    }

    #[test]
    fn empty_form_fields_count_as_absent() {
        for query in [None, Some(""), Some("customer="), Some("customer=+&date=")] {
            let page_query = PageQuery::parse(query, today()).unwrap();

            assert_eq!(
                (&*page_query.customer, page_query.date),
                ("", None),
                "{query:?}"
            );
        }
        let page_query =
            PageQuery::parse(Some("customer=M%C3%BCller+%26+S&date=2026-11-22"), today()).unwrap();
        assert_eq!(
            (&*page_query.customer, page_query.date),
            ("Müller & S", Some(today()))
        );
    }
}
