//! The products and names of the generated fleet.

use std::sync::Arc;

use uuid::Uuid;

use self::CatalogService::{Dynamics, Office365};
use super::seeded_draw::SeededDraw;

/// A product with seats.
#[derive(Debug)]
pub(super) struct CatalogProduct {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) service: CatalogService,
    pub(super) workloads: &'static [CatalogWorkload],
}

/// A service: products that are processed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CatalogService {
    Office365,
    Dynamics,
}

/// A workload, which seats are used for.
#[derive(Debug)]
pub(super) struct CatalogWorkload {
    pub(super) code: &'static str,
    pub(super) name: &'static str,
}

pub(super) const EXCHANGE: CatalogWorkload = CatalogWorkload::new("EXO", "Exchange");
pub(super) const SHAREPOINT: CatalogWorkload = CatalogWorkload::new("SPO", "SharePoint");
pub(super) const SKYPE: CatalogWorkload = CatalogWorkload::new("SFB", "Skype For Business");
const TEAMS: CatalogWorkload = CatalogWorkload::new("TEAMS", "Microsoft Teams");
const ONEDRIVE: CatalogWorkload = CatalogWorkload::new("ODB", "OneDrive for Business");
const APPS: CatalogWorkload = CatalogWorkload::new("OPP", "Microsoft 365 Apps");
const SALES: CatalogWorkload = CatalogWorkload::new("CRM", "Dynamics 365 Sales");
const SERVICE_DESK: CatalogWorkload =
    CatalogWorkload::new("CRMCS", "Dynamics 365 Customer Service");

const COLLABORATION: &[CatalogWorkload] = &[EXCHANGE, SHAREPOINT, TEAMS, ONEDRIVE];
const SUITE: &[CatalogWorkload] = &[EXCHANGE, SHAREPOINT, TEAMS, ONEDRIVE, APPS];

/// The products of the generated fleet; some names need quoting in CSV and are not ASCII.
const PRODUCTS: [(&str, CatalogService, &[CatalogWorkload]); 12] = [
    ("MICROSOFT 365 E3", Office365, SUITE),
    ("MICROSOFT 365 BUSINESS PREMIUM", Office365, SUITE),
    ("MICROSOFT 365 BUSINESS BASIC", Office365, COLLABORATION),
    ("MICROSOFT 365 E5, \"COMPLIANCE\" EDITION", Office365, SUITE),
    ("OFFICE 365 E1", Office365, COLLABORATION),
    ("EXCHANGE ONLINE (PLAN 1)", Office365, &[EXCHANGE]),
    (
        "SHAREPOINT ONLINE (PLAN 2)",
        Office365,
        &[SHAREPOINT, ONEDRIVE],
    ),
    (
        "MICROSOFT 365 APPS FÜR UNTERNEHMEN",
        Office365,
        &[APPS, ONEDRIVE],
    ),
    ("MICROSOFT TEAMS ESSENTIALS", Office365, &[TEAMS]),
    (
        "DYNAMICS 365 – SALES, ENTERPRISE EDITION",
        Dynamics,
        &[SALES],
    ),
    ("DYNAMICS 365 CUSTOMER SERVICE", Dynamics, &[SERVICE_DESK]),
    (
        "DYNAMICS 365 CUSTOMER ENGAGEMENT PLAN",
        Dynamics,
        &[SALES, SERVICE_DESK],
    ),
];

/// Returns the products of the generated fleet.
pub(super) fn products() -> Vec<Arc<CatalogProduct>> {
    PRODUCTS
        .iter()
        .map(|(name, service, workloads)| Arc::new(CatalogProduct::new(*name, *service, workloads)))
        .collect()
}

/// Returns the id of a product, which follows from its name.
pub(in crate::simulator) fn product_id(name: &str) -> Uuid {
    SeededDraw::new(0).with_text(name).id()
}

const NAME_STEMS: [&str; 12] = [
    "Contoso",
    "Fabrikam",
    "Northwind Traders",
    "Łódzkie Zakłady Przemysłowe",
    "Müller & Söhne",
    "O'Brien, Walsh \"and\" Partners",
    "東京商事",
    "Żubr Logistyka",
    "Café Crème, Frères",
    "Adventure Works",
    "Tailspin Toys",
    "Wide World Importers",
];

const NAME_ENDINGS: [&str; 5] = ["GmbH", "Sp. z o.o.", "Ltd", "S.A.", "Inc."];

/// Returns a company's name, which the number makes unique.
pub(super) fn company_name(draw: SeededDraw, index: usize) -> String {
    let stem = draw.with_text("stem").choose(&NAME_STEMS).copied();
    let ending = draw.with_text("ending").choose(&NAME_ENDINGS).copied();
    format!(
        "{} {} {index:04}",
        stem.unwrap_or_default(),
        ending.unwrap_or_default()
    )
}

// === impl CatalogProduct ===

impl CatalogProduct {
    /// Creates a product whose id follows from its name.
    pub(super) fn new(
        name: impl Into<String>,
        service: CatalogService,
        workloads: &'static [CatalogWorkload],
    ) -> Self {
        let name = name.into();
        Self {
            id: product_id(&name),
            name,
            service,
            workloads,
        }
    }
}

// === impl CatalogService ===

impl CatalogService {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Office365 => "O365",
            Self::Dynamics => "CRM",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Office365 => "o365",
            Self::Dynamics => "crm",
        }
    }
}

// === impl CatalogWorkload ===

impl CatalogWorkload {
    const fn new(code: &'static str, name: &'static str) -> Self {
        Self { code, name }
    }
}
