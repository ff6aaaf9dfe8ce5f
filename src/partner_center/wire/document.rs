//! Documents that are served unchanged. Their numbers are not used, so they are not read.

use serde::Deserialize;

use super::{
    MalformedResponse, PageLinks, RowList, check_owner, check_whole, decode, processed_at,
};
use crate::domain::{CustomerId, DocumentSummary, ProcessedAt, ProcessedDate, RowName};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentBody {
    total_count: Option<u64>,
    items: RowList<DocumentRow>,
    links: Option<PageLinks>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentRow {
    customer_id: Option<String>,
    customer_tenant_id: Option<String>,
    service_name: Option<String>,
    product_name: Option<String>,
    workload_name: Option<String>,
    channel: Option<String>,
    processed_date_time: Option<String>,
}

/// Decodes the parts of a collection that are compared with the next answer. `owner` is the customer of
/// its rows, where it is about one.
///
/// # Errors
///
/// [`MalformedResponse`], also when the body is only a part of the collection.
pub(in crate::partner_center) fn decode_document(
    body: &[u8],
    owner: Option<CustomerId>,
) -> Result<DocumentSummary, MalformedResponse> {
    let body: DocumentBody = decode(body)?;
    let has_next = body.links.is_some_and(|links| links.next.is_some());
    let RowList(items) = body.items;
    check_whole(body.total_count, items.len(), has_next)?;
    let mut newest = None;
    let mut rows = Vec::with_capacity(items.len());
    for (index, row) in items.into_iter().enumerate() {
        let date = row
            .check(owner)
            .map_err(|error| error.within(format_args!("items[{index}]")))?;
        newest = newest.max(date);
        rows.push(RowName {
            service: row.service_name,
            product: row.product_name,
            workload: row.workload_name,
            channel: row.channel,
        });
    }
    Ok(DocumentSummary::new(newest, rows))
}

// === impl DocumentRow ===

impl DocumentRow {
    /// Checks the owner of the row, and returns its date.
    fn check(&self, owner: Option<CustomerId>) -> Result<Option<ProcessedDate>, MalformedResponse> {
        if let Some(owner) = owner {
            let ids = [
                ("customerId", &self.customer_id),
                ("customerTenantId", &self.customer_tenant_id),
            ];
            check_owner(ids, owner)?;
        }
        let date = self.processed_date_time.as_deref().map(processed_at);
        Ok(date.transpose()?.map(ProcessedAt::date))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::samples;

    fn decoded(
        items: &Value,
        owner: Option<CustomerId>,
    ) -> Result<DocumentSummary, MalformedResponse> {
        let body = json!({ "items": items, "totalCount": items.as_array().unwrap().len() });
        decode_document(format!("\u{feff}{body}").as_bytes(), owner)
    }

    #[test]
    fn a_summary_has_the_names_of_rows_and_the_newest_date() {
        let rows = json!([
            { "serviceName": "o365", "processedDateTime": "2017-03-09T00:00:00+00:00" },
            { "serviceName": "crm", "licensesSold": "not read", "processedDateTime": "2017-03-10T03:25:16.36" },
            {},
        ]);
        let mut other_way = rows.clone();
        other_way.as_array_mut().unwrap().reverse();

        let outline = decoded(&rows, None).unwrap();

        assert_eq!(outline, decoded(&other_way, None).unwrap());
        assert_eq!(outline.rows().len(), 3);
        assert_eq!(outline.processed_date().unwrap().to_string(), "2017-03-10");
    }

    #[test]
    fn a_row_of_another_customer_rejects_the_document() {
        let customer = samples::customer();
        let own = json!({ "customerId": customer.to_string().to_uppercase() });
        let other = json!({ "customerId": "00000000-0000-4000-8000-000000000001" });

        assert!(decoded(&json!([own, {}]), Some(customer)).is_ok());
        let refused = decoded(&json!([own, other]), Some(customer)).unwrap_err();
        assert!(refused.is_of_other_customer);
        assert!(
            refused.to_string().starts_with("items[1].customerId: "),
            "{refused}"
        );
        assert!(decoded(&json!([other]), None).is_ok(), "over all customers");
    }

    #[test]
    fn an_incomplete_collection_is_rejected() {
        for body in [
            json!({}),
            json!({ "items": [{}], "totalCount": 2 }),
            json!({ "items": [{}], "links": { "next": { "uri": "?page=2" } } }),
            json!({ "items": [{}], "totalCount": 1, "links": { "next": { "uri": "?page=2" } } }),
            json!({ "items": [{ "processedDateTime": "soon" }] }),
            json!({ "items": [{ "serviceName": 7 }] }),
        ] {
            let decoded = decode_document(body.to_string().as_bytes(), None);
            assert!(
                decoded.is_err_and(|error| !error.is_of_other_customer),
                "{body}"
            );
        }
    }
}
