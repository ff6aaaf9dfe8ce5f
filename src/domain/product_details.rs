use std::collections::{BTreeMap, BTreeSet};

/// What a list of products shows of one, and what may tell it apart from others of that name.
#[derive(Clone, Copy, Debug)]
pub struct ProductDetails<'a> {
    /// The name, as it is shown.
    pub name: &'a str,
    /// The sales channel.
    pub channel: Option<&'a str>,
    /// The service.
    pub service: &'a str,
    /// The product's id.
    pub id: Option<&'a str>,
}

/// Returns for each product what tells it apart from the others of the same name: the channel, else
/// the service, else the id, else all three. `None` where no other product has its name.
pub fn distinctions(products: &[ProductDetails<'_>]) -> Vec<Option<String>> {
    let mut by_name: BTreeMap<&str, Vec<&ProductDetails<'_>>> = BTreeMap::new();
    for product in products {
        by_name.entry(product.name).or_default().push(product);
    }
    let details: BTreeMap<&str, fn(&ProductDetails<'_>) -> String> = by_name
        .into_iter()
        .filter(|(_, namesakes)| namesakes.len() > 1)
        .map(|(name, namesakes)| (name, distinguishing_detail(&namesakes)))
        .collect();
    products
        .iter()
        .map(|product| details.get(product.name).map(|detail| detail(product)))
        .collect()
}

/// The first detail that is different for each of these.
fn distinguishing_detail(namesakes: &[&ProductDetails<'_>]) -> fn(&ProductDetails<'_>) -> String {
    let differs = |detail: &fn(&ProductDetails<'_>) -> String| {
        let values: BTreeSet<_> = namesakes.iter().map(|product| detail(product)).collect();
        values.len() == namesakes.len()
    };
    let details: [fn(&ProductDetails<'_>) -> String; 3] =
        [channel_detail, service_detail, id_detail];
    details.into_iter().find(differs).unwrap_or(all_details)
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
    [channel_detail, service_detail, id_detail]
        .map(|detail| detail(product))
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const E3: ProductDetails<'_> = ProductDetails {
        name: "E3",
        channel: Some("reseller"),
        service: "o365",
        id: None,
    };

    #[test]
    fn products_of_the_same_name_are_distinguished_by_channel_service_or_id() {
        let direct = ProductDetails {
            channel: Some("direct"),
            ..E3
        };
        let crm = ProductDetails {
            service: "crm",
            ..E3
        };
        let other_id = ProductDetails {
            id: Some("6fd2c87f"),
            ..E3
        };
        let other_name = ProductDetails { name: "E5", ..E3 };

        for (products, expected) in [
            (vec![E3, other_name], vec![None, None]),
            (vec![E3, direct], vec![Some("reseller"), Some("direct")]),
            (vec![E3, crm], vec![Some("o365"), Some("crm")]),
            (vec![E3, other_id], vec![Some("no id"), Some("6fd2c87f")]),
            (
                vec![E3, direct, other_name, other_id],
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
