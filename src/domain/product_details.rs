use std::collections::{BTreeMap, BTreeSet};

/// A product as a list shows it, and the details that may distinguish it from others of that name.
#[derive(Clone, Debug)]
pub struct ProductDetails<'a> {
    /// The name, as it is shown.
    pub name: String,
    /// Microsoft's name.
    pub microsoft_name: &'a str,
    /// The sales channel.
    pub channel: Option<&'a str>,
    /// The service.
    pub service: &'a str,
    /// The product's id.
    pub id: Option<&'a str>,
}

/// Returns for each product the detail that distinguishes it from others of the same name.
///
/// It is Microsoft's name, else the channel, else the service, else the id, else all of them; `None`
/// where the product's name is unique.
pub fn distinctions(products: &[ProductDetails<'_>]) -> Vec<Option<String>> {
    let mut by_name: BTreeMap<&str, Vec<&ProductDetails<'_>>> = BTreeMap::new();
    for product in products {
        by_name.entry(&product.name).or_default().push(product);
    }
    let details: BTreeMap<&str, fn(&ProductDetails<'_>) -> String> = by_name
        .into_iter()
        .filter(|(_, namesakes)| namesakes.len() > 1)
        .map(|(name, namesakes)| (name, distinguishing_detail(&namesakes)))
        .collect();
    products
        .iter()
        .map(|product| {
            details
                .get(product.name.as_str())
                .map(|detail| detail(product))
        })
        .collect()
}

/// The first detail that is different for each of these.
fn distinguishing_detail(namesakes: &[&ProductDetails<'_>]) -> fn(&ProductDetails<'_>) -> String {
    let differs = |detail: &fn(&ProductDetails<'_>) -> String| {
        let values: BTreeSet<_> = namesakes.iter().map(|product| detail(product)).collect();
        values.len() == namesakes.len()
    };
    let details: [fn(&ProductDetails<'_>) -> String; 4] =
        [microsoft_name, channel_detail, service_detail, id_detail];
    details.into_iter().find(differs).unwrap_or(all_details)
}

fn microsoft_name(product: &ProductDetails<'_>) -> String {
    product.microsoft_name.to_owned()
}

fn channel_detail(product: &ProductDetails<'_>) -> String {
    product.channel.unwrap_or("no channel").to_owned()
}

fn service_detail(product: &ProductDetails<'_>) -> String {
    product.service.to_owned()
}

fn id_detail(product: &ProductDetails<'_>) -> String {
    product.id.unwrap_or("no id").to_owned()
}

fn all_details(product: &ProductDetails<'_>) -> String {
    let details = [channel_detail, service_detail, id_detail].map(|detail| detail(product));
    let name = Some(microsoft_name(product)).filter(|name| *name != product.name);
    let details: Vec<_> = name.into_iter().chain(details).collect();
    details.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_the_same_name_are_distinguished_by_a_detail() {
        let e3 = || ProductDetails {
            name: "E3".to_owned(),
            microsoft_name: "E3",
            channel: Some("reseller"),
            service: "o365",
            id: None,
        };
        let direct = || ProductDetails {
            channel: Some("direct"),
            ..e3()
        };
        let crm = || ProductDetails {
            service: "crm",
            ..e3()
        };
        let other_id = || ProductDetails {
            id: Some("6fd2c87f"),
            ..e3()
        };
        let other_name = || ProductDetails {
            name: "E5".to_owned(),
            microsoft_name: "E5",
            ..e3()
        };
        let renamed = || ProductDetails {
            microsoft_name: "OFFICE 365 E3",
            ..e3()
        };

        for (products, expected) in [
            (vec![e3(), other_name()], vec![None, None]),
            (vec![e3(), direct()], vec![Some("reseller"), Some("direct")]),
            (vec![e3(), crm()], vec![Some("o365"), Some("crm")]),
            (
                vec![e3(), renamed()],
                vec![Some("E3"), Some("OFFICE 365 E3")],
            ),
            (
                vec![direct(), renamed(), renamed()],
                vec![
                    Some("direct, o365, no id"),
                    Some("OFFICE 365 E3, reseller, o365, no id"),
                    Some("OFFICE 365 E3, reseller, o365, no id"),
                ],
            ),
            (
                vec![e3(), other_id()],
                vec![Some("no id"), Some("6fd2c87f")],
            ),
            (
                vec![e3(), direct(), other_name(), other_id()],
                vec![
                    Some("reseller, o365, no id"),
                    Some("direct, o365, no id"),
                    None,
                    Some("reseller, o365, 6fd2c87f"),
                ],
            ),
        ] {
            let distinctions = distinctions(&products);

            let shown: Vec<_> = distinctions.iter().map(Option::as_deref).collect();
            assert_eq!(shown, expected);
        }
    }
}
