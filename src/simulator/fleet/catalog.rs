use std::sync::Arc;

use uuid::Uuid;

use super::draw::Draw;

/// Something a customer can buy seats of.
#[derive(Debug)]
pub(super) struct Product {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) service: Service,
    pub(super) workloads: &'static [Workload],
}

/// What Microsoft calls a service: the group that is processed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Office365,
    Dynamics,
}

/// One thing that a seat can be used for.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) code: &'static str,
    pub(super) name: &'static str,
}

pub(super) const EXCHANGE: Workload = Workload::new("EXO", "Exchange");
pub(super) const SHAREPOINT: Workload = Workload::new("SPO", "SharePoint");
pub(super) const SKYPE: Workload = Workload::new("SFB", "Skype For Business");
const TEAMS: Workload = Workload::new("TEAMS", "Microsoft Teams");
const ONEDRIVE: Workload = Workload::new("ODB", "OneDrive for Business");
const APPS: Workload = Workload::new("OPP", "Microsoft 365 Apps");
const SALES: Workload = Workload::new("CRM", "Dynamics 365 Sales");
const SERVICE_DESK: Workload = Workload::new("CRMCS", "Dynamics 365 Customer Service");

const COLLABORATION: &[Workload] = &[EXCHANGE, SHAREPOINT, TEAMS, ONEDRIVE];
const SUITE: &[Workload] = &[EXCHANGE, SHAREPOINT, TEAMS, ONEDRIVE, APPS];

/// The products of the generated fleet; some names need quoting in CSV and are not ASCII.
const PRODUCTS: [(&str, Service, &[Workload]); 12] = [
    ("MICROSOFT 365 E3", Service::Office365, SUITE),
    ("MICROSOFT 365 BUSINESS PREMIUM", Service::Office365, SUITE),
    (
        "MICROSOFT 365 BUSINESS BASIC",
        Service::Office365,
        COLLABORATION,
    ),
    (
        "MICROSOFT 365 E5, \"COMPLIANCE\" EDITION",
        Service::Office365,
        SUITE,
    ),
    ("OFFICE 365 E1", Service::Office365, COLLABORATION),
    ("EXCHANGE ONLINE (PLAN 1)", Service::Office365, &[EXCHANGE]),
    (
        "SHAREPOINT ONLINE (PLAN 2)",
        Service::Office365,
        &[SHAREPOINT, ONEDRIVE],
    ),
    (
        "MICROSOFT 365 APPS FÜR UNTERNEHMEN",
        Service::Office365,
        &[APPS, ONEDRIVE],
    ),
    ("MICROSOFT TEAMS ESSENTIALS", Service::Office365, &[TEAMS]),
    (
        "DYNAMICS 365 – SALES, ENTERPRISE EDITION",
        Service::Dynamics,
        &[SALES],
    ),
    (
        "DYNAMICS 365 CUSTOMER SERVICE",
        Service::Dynamics,
        &[SERVICE_DESK],
    ),
    (
        "DYNAMICS 365 CUSTOMER ENGAGEMENT PLAN",
        Service::Dynamics,
        &[SALES, SERVICE_DESK],
    ),
];

/// Everything the generated fleet can hold.
pub(super) fn products() -> Vec<Arc<Product>> {
    PRODUCTS
        .iter()
        .map(|(name, service, workloads)| Arc::new(Product::new(*name, *service, workloads)))
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
pub(super) fn company_name(draw: Draw, index: usize) -> String {
    let stem = draw.with_text("stem").choose(&NAME_STEMS).copied();
    let ending = draw.with_text("ending").choose(&NAME_ENDINGS).copied();
    format!(
        "{} {} {index:04}",
        stem.unwrap_or_default(),
        ending.unwrap_or_default()
    )
}

// === impl Product ===

impl Product {
    /// A product whose id follows from its name.
    pub(super) fn new(
        name: impl Into<String>,
        service: Service,
        workloads: &'static [Workload],
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

impl Service {
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

impl Workload {
    const fn new(code: &'static str, name: &'static str) -> Self {
        Self { code, name }
    }
}
