use super::simplified::Usage;

/// The header line: the names of the simplified form, in its order.
const HEADER: [&str; 13] = [
    "customerId",
    "customerName",
    "processedDate",
    "productName",
    "productId",
    "serviceName",
    "serviceCode",
    "channel",
    "workloadName",
    "workloadCode",
    "licensesActive",
    "licensesQualified",
    "usagePercent",
];

/// Renders the simplified form as CSV: one line per product and workload, CRLF after each.
///
/// It reads the rendered form rather than the rows, so that an entry need not keep both in memory.
/// An absent value is an empty field, never a zero.
pub(super) fn render(simplified: &[u8]) -> Result<Box<[u8]>, csv::Error> {
    let usage: Usage<'_> = serde_json::from_slice(simplified).map_err(std::io::Error::from)?;
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    writer.write_record(HEADER)?;
    for product in &usage.products {
        for workload in &product.workloads {
            writer.write_record([
                &usage.customer_id,
                usage.customer_name.as_deref().unwrap_or_default(),
                &workload.processed_date,
                &product.product_name,
                product.product_id.as_deref().unwrap_or_default(),
                &product.service_name,
                product.service_code.as_deref().unwrap_or_default(),
                product.channel.as_deref().unwrap_or_default(),
                &workload.workload_name,
                workload.workload_code.as_deref().unwrap_or_default(),
                &workload.licenses_active.to_string(),
                &workload.licenses_qualified.to_string(),
                &workload.usage_percent.map_or_else(String::new, json_number),
            ])?;
        }
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(bytes.into_boxed_slice())
}

/// The number as the JSON form writes it.
fn json_number(number: f64) -> String {
    serde_json::Value::from(number).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_commas_and_quotes_stay_one_field() {
        let simplified = br#"{"customerId":"c","customerName":"Sm\u00edth, \"Co\"","processedDate":"2017-03-09","products":[
            {"productName":"A","serviceName":"o365","licensesQualified":3,"workloads":[
                {"workloadName":"Exchange","licensesActive":1,"licensesQualified":3,"usagePercent":33.33,"processedDate":"2017-03-09"},
                {"workloadName":"Teams","licensesActive":0,"licensesQualified":0,"usagePercent":null,"processedDate":"2017-03-09"}]}],
            "workloads":[]}"#;

        let csv = String::from_utf8(render(simplified).unwrap().into_vec()).unwrap();

        assert_eq!(
            csv,
            "customerId,customerName,processedDate,productName,productId,serviceName,serviceCode,channel,\
             workloadName,workloadCode,licensesActive,licensesQualified,usagePercent\r\n\
             c,\"Smíth, \"\"Co\"\"\",2017-03-09,A,,o365,,,Exchange,,1,3,33.33\r\n\
             c,\"Smíth, \"\"Co\"\"\",2017-03-09,A,,o365,,,Teams,,0,0,\r\n"
        );
    }

    #[test]
    fn no_rows_are_a_header_alone() {
        let simplified =
            br#"{"customerId":"c","customerName":null,"processedDate":null,"products":[],"workloads":[]}"#;

        let csv = String::from_utf8(render(simplified).unwrap().into_vec()).unwrap();

        assert_eq!(csv.lines().count(), 1);
    }
}
