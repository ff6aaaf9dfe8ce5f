use std::sync::Arc;

use uuid::Uuid;

use super::seeded_draw::SeededDraw;

/// Something a customer can buy seats of.
#[derive(Debug)]
pub(super) struct CatalogProduct {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) service: CatalogService,
    pub(super) workloads: &'static [CatalogWorkload],
}

/// What Microsoft calls a service: the group that is processed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CatalogService {
    Office365,
    Dynamics,
}

/// One thing that a seat can be used for.
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
    ("MICROSOFT 365 E3", CatalogService::Office365, SUITE),
    (
        "MICROSOFT 365 BUSINESS PREMIUM",
        CatalogService::Office365,
        SUITE,
    ),
    (
        "MICROSOFT 365 BUSINESS BASIC",
        CatalogService::Office365,
        COLLABORATION,
    ),
    (
        "MICROSOFT 365 E5, \"COMPLIANCE\" EDITION",
        CatalogService::Office365,
        SUITE,
    ),
    ("OFFICE 365 E1", CatalogService::Office365, COLLABORATION),
    (
        "EXCHANGE ONLINE (PLAN 1)",
        CatalogService::Office365,
        &[EXCHANGE],
    ),
    (
        "SHAREPOINT ONLINE (PLAN 2)",
        CatalogService::Office365,
        &[SHAREPOINT, ONEDRIVE],
    ),
    (
        "MICROSOFT 365 APPS FÜR UNTERNEHMEN",
        CatalogService::Office365,
        &[APPS, ONEDRIVE],
    ),
    (
        "MICROSOFT TEAMS ESSENTIALS",
        CatalogService::Office365,
        &[TEAMS],
    ),
    (
        "DYNAMICS 365 – SALES, ENTERPRISE EDITION",
        CatalogService::Dynamics,
        &[SALES],
    ),
    (
        "DYNAMICS 365 CUSTOMER SERVICE",
        CatalogService::Dynamics,
        &[SERVICE_DESK],
    ),
    (
        "DYNAMICS 365 CUSTOMER ENGAGEMENT PLAN",
        CatalogService::Dynamics,
        &[SALES, SERVICE_DESK],
    ),
];

/// Everything the generated fleet can hold.
pub(super) fn products() -> Vec<Arc<CatalogProduct>> {
    PRODUCTS
        .iter()
        .map(|(name, service, workloads)| Arc::new(CatalogProduct::new(*name, *service, workloads)))
        .collect()
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

/// A company's name; the number keeps two of them apart.
pub(super) fn company_name(draw: SeededDraw, index: usize) -> String {
    let stem = draw.with_text("stem").choose(&NAME_STEMS).copied();
    let ending = draw.with_text("ending").choose(&NAME_ENDINGS).copied();
    format!(
        "{} {} {index:04}",
        stem.unwrap_or_default(),
        ending.unwrap_or_default()
    )
}

// === impl Product ===

impl CatalogProduct {
    /// A product whose id follows from its name.
    pub(super) fn new(
        name: impl Into<String>,
        service: CatalogService,
        workloads: &'static [CatalogWorkload],
    ) -> Self {
        let name = name.into();
        Self {
            id: super::product_id(&name),
            name,
            service,
            workloads,
        }
    }
}

// === impl Service ===

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

// === impl Workload ===

impl CatalogWorkload {
    const fn new(code: &'static str, name: &'static str) -> Self {
        Self { code, name }
    }
}
