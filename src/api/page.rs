//! The web page at `/`.
//!
//! It works without JavaScript. It shows the same answers as the API, with the same authorization,
//! metrics, log and cache. Browsers do not store it, since it shows the current age of the numbers.

mod customers;
mod figures;
mod frame;
mod freshness;
mod overview;
mod problem;
mod query;
mod usage;

pub(super) use self::problem::problem_page;
use self::{
    customers::{CustomerDirectory, CustomerSearchResult},
    query::PageQuery,
};
use super::{context::AuthenticatedRequest, data, response::HandlerResult};
use crate::{
    domain::CustomerId,
    offload,
    problem::{Problem, ProblemKind},
};

/// `GET /`.
pub(super) async fn page(request: AuthenticatedRequest) -> HandlerResult {
    let today = request.today();
    let query = PageQuery::parse(request.query(), today)?;
    match CustomerId::parse(&query.customer) {
        Ok(customer) => usage::show(&request, &query, customer).await,
        Err(_) => show_customers(&request, &query).await,
    }
}

/// Shows the customers that match, or the usage of the one whose name was entered.
async fn show_customers(request: &AuthenticatedRequest, query: &PageQuery) -> HandlerResult {
    let list = customers::list(request, request.cache_directive()).await;
    let list = list.map_err(|error| data::rejection(request, query.date, &error))?;
    let directory = CustomerDirectory::new(&list, request.caller());
    let searching = {
        let (directory, text) = (directory.clone(), query.customer.clone());
        offload::run_cpu_bound(directory.search_bytes(), move || directory.search(&text))
    };
    let found = match searching.await {
        CustomerSearchResult::Exact(customer) => {
            return usage::show(request, query, customer).await;
        }
        CustomerSearchResult::Matches(found) if found.is_empty() => {
            let detail = format!(
                "no customer that you may see has {:?} in its name or domain",
                crate::text::excerpt(&query.customer)
            );
            return Err(Problem::new(ProblemKind::UnknownCustomer, detail).into());
        }
        CustomerSearchResult::Matches(found) => Some(found),
        CustomerSearchResult::All => None,
    };
    overview::show(request, query, &list, directory, found).await
}
