//! The list of customers, each with the JSON that was sent.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DecodedPage, MalformedResponse, PageLinks, RowList, decode};
use crate::domain::{CustomerEntry, CustomerId, ListedCustomer};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomersBody<'a> {
    total_count: Option<u64>,
    #[serde(borrow)]
    items: RowList<&'a RawValue>,
    links: Option<PageLinks>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomerBody {
    id: String,
    company_profile: Option<CompanyProfile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CompanyProfile {
    company_name: Option<String>,
    domain: Option<String>,
}

/// Decodes one page of the list of customers.
///
/// # Errors
///
/// [`MalformedResponse`], also for a customer without an id: its visibility is unknown.
pub(in crate::partner_center) fn decode_customers(
    body: &[u8],
) -> Result<DecodedPage<ListedCustomer>, MalformedResponse> {
    let body: CustomersBody<'_> = decode(body)?;
    let customers = body.items.0.into_iter().enumerate().map(|(index, raw)| {
        convert_customer(raw).map_err(|error| error.within(format_args!("items[{index}]")))
    });
    Ok(DecodedPage {
        items: customers.collect::<Result<_, _>>()?,
        total: body.total_count,
        next: body.links.map_or(Ok(None), PageLinks::next)?,
    })
}

fn convert_customer(raw: &RawValue) -> Result<ListedCustomer, MalformedResponse> {
    let customer: CustomerBody = decode(raw.get().as_bytes())?;
    let id = CustomerId::parse(&customer.id)
        .map_err(|error| MalformedResponse::new(format!("id: {error}")))?;
    let (name, domain) = match customer.company_profile {
        Some(profile) => (profile.company_name, profile.domain),
        None => (None, None),
    };
    Ok(ListedCustomer {
        entry: CustomerEntry {
            id,
            name: name.unwrap_or_default(),
            domain,
        },
        raw: raw.get().into(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "4D3CF487-70F4-4E1E-9FF1-B2BFCE8D9F04";

    fn decoded(body: &Value) -> Result<DecodedPage<ListedCustomer>, MalformedResponse> {
        decode_customers(body.to_string().as_bytes())
    }

    #[test]
    fn a_customer_is_stored_as_it_was_sent() {
        let raw = format!(
            r#"{{ "id":"{ID}", "new":[1.50, "\u00e4"],"companyProfile":{{"companyName":"Ä"}} }}"#
        );
        let body = format!("\u{feff}{{\"items\":[{raw}],\"unknown\":1}}");

        let page = decode_customers(body.as_bytes()).unwrap();

        let [customer] = &page.items[..] else {
            panic!("{page:?}");
        };
        assert_eq!(*customer.raw, raw);
        assert_eq!(customer.entry.name, "Ä");
        assert_eq!(customer.entry.id, CustomerId::parse(ID).unwrap());
        assert_eq!(page.next, None);
    }

    #[test]
    fn a_malformed_customer_is_located_but_not_quoted() {
        for (item, expected) in [
            (json!({}), "items[0]: missing field"),
            (json!({ "id": "secret" }), "items[0].id: expected a GUID"),
            (json!({ "id": 7 }), "items[0].id: expected a string"),
            (json!("secret"), "items[0]: "),
            (
                json!({ "id": ID, "companyProfile": { "companyName": 1 } }),
                "items[0].companyProfile.companyName: expected a string",
            ),
        ] {
            let error = decoded(&json!({ "items": [item] }))
                .unwrap_err()
                .to_string();

            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(decoded(&json!({ "totalCount": 0 })).is_err());
    }
}
