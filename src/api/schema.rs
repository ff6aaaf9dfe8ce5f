//! What the [description](super::openapi) of the API is written in: what requests carry, what answers
//! have in common, problems, credentials, and examples.
//!
//! Handlers say by these what is their own.

mod examples;
mod headers;
mod native;
mod parameters;
mod problems;
mod security;

pub(super) use self::{
    examples::{answer as answer_example, problems as problem_examples},
    headers::{Subject, all as headers, dress},
    native::{
        NativeCustomers, NativeDeployment, NativePartnerDeployment, NativePartnerUsage, NativeUsage,
    },
    parameters::{
        DataHeaders, FileHeaders, OfCustomer, OfDate, OfPage, OfTheme, PageHeaders, Paging,
        file_beneath,
    },
    problems::{
        ChartProblems, CustomerProblems, DatedProblems, FileProblems, FolderProblems, ListProblems,
        PageProblems, PartnerProblems,
    },
    security::{Anonymous, requirements, schemes},
};

/// The tag of data.
pub(super) const USAGE: &str = "usage";

/// The tag of what people look at.
pub(super) const SHOWN: &str = "shown";

/// The tag of files about the API.
pub(super) const ABOUT: &str = "about";
