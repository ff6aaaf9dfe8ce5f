//! The list of customers: rendered as a whole, and cut to what a caller may see or requests.

mod filter;
mod index;
mod page;
mod search;
mod slices;

pub(super) use self::index::render;
pub use self::{
    filter::{CustomerFilter, InvalidFilter},
    index::{CustomerIndex, VisibleCustomers},
    page::{Continuation, CustomerPageRequest, InvalidContinuation},
    search::CustomerSearch,
};

#[cfg(test)]
mod tests;
