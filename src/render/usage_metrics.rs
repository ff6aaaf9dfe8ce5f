//! The usage of all customers as metrics, in Prometheus' text format.

use std::{borrow::Cow, collections::BTreeMap};

use crate::domain::{FleetEntry, FleetUsage, LicenseUsage, Portfolio, aggregation};

/// Renders the usage of all customers as gauges
/// ([text format 0.0.4](https://prometheus.io/docs/instrumenting/exposition_formats/)).
///
/// Rows with equal labels are summed, and products that the portfolio excludes are left out. Of more
/// than `max_series` series, those of the last products of the last customers are cut; a gauge has
/// their number. The series of a customer and product are cut together.
pub fn usage_metrics(fleet: &FleetUsage, portfolio: &Portfolio, max_series: usize) -> String {
    let mut active = MetricFamily::new(
        "usage_proxy_customer_licenses_active",
        "Licenses of a customer that were used in the last 28 days, by Microsoft's name of the product, \
         and workload.",
    );
    let mut qualified = MetricFamily::new(
        "usage_proxy_customer_licenses_qualified",
        "Licenses of a customer that are entitled to a workload, by Microsoft's name of the product.",
    );
    let mut unused = MetricFamily::new(
        "usage_proxy_customer_licenses_unused",
        "Licenses of a customer beyond those that the busiest workload of the product uses.",
    );
    let (mut written, mut cut) = (0, 0);
    let known = fleet.entries.iter();
    for (entry, usage) in known.filter_map(|entry| Some((entry, entry.usage.as_ref()?))) {
        let customer = customer_labels(entry);
        for (product, numbers) in products_by_name(usage, portfolio) {
            let series = 2 * numbers.workloads.len() + 1;
            // After the first cut everything is, so that a series does not come and go with others.
            if cut > 0 || written + series > max_series {
                cut += series;
                continue;
            }
            written += series;
            let product = format!("{customer},product=\"{}\"", escape(product));
            unused.push(&product, numbers.unused);
            for (workload, counts) in numbers.workloads {
                let workload = format!("{product},workload=\"{}\"", escape(workload));
                active.push(&workload, counts.active);
                qualified.push(&workload, counts.qualified);
            }
        }
    }
    let cut = format!(
        "# HELP usage_proxy_customer_series_cut Series of customers that are left out, because there \
         are more than metrics.usage_max_series.\n\
         # TYPE usage_proxy_customer_series_cut gauge\n\
         usage_proxy_customer_series_cut {cut}\n"
    );
    [active.text, qualified.text, unused.text, cut].concat()
}

/// The numbers of all products of one name.
#[derive(Default)]
struct NamedProduct<'a> {
    unused: u64,
    workloads: BTreeMap<&'a str, WorkloadCounts>,
}

#[derive(Default)]
struct WorkloadCounts {
    active: u64,
    qualified: u64,
}

/// All samples of one metric.
struct MetricFamily {
    name: &'static str,
    text: String,
}

/// Adds up the products of a customer by their names. No sum overflows, since the total of all rows
/// does not.
fn products_by_name<'a>(
    usage: &'a LicenseUsage,
    portfolio: &Portfolio,
) -> BTreeMap<&'a str, NamedProduct<'a>> {
    let mut by_name: BTreeMap<&str, NamedProduct<'_>> = BTreeMap::new();
    for product in aggregation::products(usage) {
        let row = product.product;
        let rule = portfolio.rule(row.product_id.as_deref(), &row.product_name);
        if rule.is_some_and(|rule| rule.exclude) {
            continue;
        }
        let numbers = by_name.entry(&row.product_name).or_default();
        numbers.unused += product.licenses_unused();
        for row in product.workloads {
            let counts = numbers.workloads.entry(&row.workload_name).or_default();
            counts.active += row.licenses_active;
            counts.qualified += row.licenses_qualified;
        }
    }
    by_name
}

fn customer_labels(entry: &FleetEntry) -> String {
    let name = escape(&entry.customer_name);
    format!(
        "customer_id=\"{}\",customer_name=\"{name}\"",
        entry.customer_id
    )
}

/// Escapes the value of a label.
fn escape(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(value);
    }
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(escaped.replace('\n', "\\n"))
}

// === impl MetricFamily ===

impl MetricFamily {
    fn new(name: &'static str, help: &str) -> Self {
        Self {
            name,
            text: format!("# HELP {name} {help}\n# TYPE {name} gauge\n"),
        }
    }

    fn push(&mut self, labels: &str, value: u64) {
        let mut digits = itoa::Buffer::new();
        for part in [self.name, "{", labels, "} ", digits.format(value), "\n"] {
            self.text.push_str(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{
        CustomerId, FleetStatus, ProductRule, ProductSelector, UsageRow, samples::usage_row as row,
    };

    fn entry(number: usize, name: &str, rows: Vec<UsageRow>) -> Arc<FleetEntry> {
        let id = format!("00000000-0000-4000-8000-{number:012}");
        let customer_id = CustomerId::parse(&id).unwrap();
        let usage = LicenseUsage::new(customer_id, Some(name.to_owned()), rows).unwrap();
        Arc::new(FleetEntry {
            customer_id,
            customer_name: name.into(),
            status: FleetStatus::Current,
            usage: Some(Arc::new(usage)),
            fetched_at: None,
            failure: None,
        })
    }

    fn fleet(entries: Vec<Arc<FleetEntry>>) -> FleetUsage {
        FleetUsage {
            processed_date: None,
            entries,
        }
    }

    fn excluding(product: &str) -> Portfolio {
        let mut portfolio = Portfolio::default();
        let rule = ProductRule {
            display_name: Some("A name of our own".into()),
            exclude: true,
            ..ProductRule::default()
        };
        portfolio.add_rule(ProductSelector::Name(product), rule);
        portfolio
    }

    /// The samples, without comments.
    fn samples_of(text: &str) -> HashMap<&str, u64> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples: Vec<_> = lines
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                (series, value.parse().unwrap())
            })
            .collect();
        let count = samples.len();
        let samples: HashMap<_, _> = samples.into_iter().collect();
        assert_eq!(samples.len(), count, "a series is there twice: {text}");
        samples
    }

    #[test]
    fn every_row_of_every_customer_is_a_sample() {
        let fleet = fleet(vec![
            entry(
                1,
                "Contoso",
                vec![row("E3", "Exchange", 3, 8), row("E3", "Teams", 5, 7)],
            ),
            entry(2, "", vec![row("E5", "Teams", 9, 8)]),
        ]);

        let text = usage_metrics(&fleet, &Portfolio::default(), 100);

        let contoso =
            "customer_id=\"00000000-0000-4000-8000-000000000001\",customer_name=\"Contoso\"";
        let nameless = "customer_id=\"00000000-0000-4000-8000-000000000002\",customer_name=\"\"";
        assert_eq!(
            text,
            format!(
                "# HELP usage_proxy_customer_licenses_active Licenses of a customer that were used in \
                 the last 28 days, by Microsoft's name of the product, and workload.\n\
                 # TYPE usage_proxy_customer_licenses_active gauge\n\
                 usage_proxy_customer_licenses_active{{{contoso},product=\"E3\",workload=\"Exchange\"}} 3\n\
                 usage_proxy_customer_licenses_active{{{contoso},product=\"E3\",workload=\"Teams\"}} 5\n\
                 usage_proxy_customer_licenses_active{{{nameless},product=\"E5\",workload=\"Teams\"}} 9\n\
                 # HELP usage_proxy_customer_licenses_qualified Licenses of a customer that are entitled \
                 to a workload, by Microsoft's name of the product.\n\
                 # TYPE usage_proxy_customer_licenses_qualified gauge\n\
                 usage_proxy_customer_licenses_qualified{{{contoso},product=\"E3\",workload=\"Exchange\"}} 8\n\
                 usage_proxy_customer_licenses_qualified{{{contoso},product=\"E3\",workload=\"Teams\"}} 7\n\
                 usage_proxy_customer_licenses_qualified{{{nameless},product=\"E5\",workload=\"Teams\"}} 8\n\
                 # HELP usage_proxy_customer_licenses_unused Licenses of a customer beyond those that the \
                 busiest workload of the product uses.\n\
                 # TYPE usage_proxy_customer_licenses_unused gauge\n\
                 usage_proxy_customer_licenses_unused{{{contoso},product=\"E3\"}} 3\n\
                 usage_proxy_customer_licenses_unused{{{nameless},product=\"E5\"}} 0\n\
                 # HELP usage_proxy_customer_series_cut Series of customers that are left out, because \
                 there are more than metrics.usage_max_series.\n\
                 # TYPE usage_proxy_customer_series_cut gauge\n\
                 usage_proxy_customer_series_cut 0\n"
            )
        );
    }

    #[test]
    fn rows_with_equal_labels_are_summed() {
        let direct = UsageRow {
            channel: Some("direct".into()),
            ..row("E3", "Teams", 1, 5)
        };
        let fleet = fleet(vec![entry(1, "A", vec![row("E3", "Teams", 2, 4), direct])]);

        let text = usage_metrics(&fleet, &Portfolio::default(), 100);

        let mut values: Vec<_> = samples_of(&text).into_values().collect();
        values.sort_unstable();
        assert_eq!(
            values,
            [0, 3, 6, 9],
            "none cut, active, unused, qualified: {text}"
        );
    }

    #[test]
    fn excluded_products_are_left_out_and_no_name_of_ours_is_used() {
        let rows = vec![row("Free", "Teams", 1, 5), row("E3", "Teams", 1, 5)];

        let text = usage_metrics(&fleet(vec![entry(1, "A", rows)]), &excluding("FREE"), 100);

        assert!(
            !text.contains("Free") && !text.contains("name of our own"),
            "{text}"
        );
        assert!(text.contains("product=\"E3\""), "{text}");
    }

    #[test]
    fn a_product_is_cut_whole_and_everything_after_it_too() {
        let suite = ["A", "B", "C"].map(|workload| row("E3", workload, 1, 2));
        let fleet = fleet(vec![
            entry(1, "first", vec![row("E1", "Teams", 1, 2)]),
            entry(2, "second", suite.to_vec()),
            entry(3, "third", vec![row("E1", "Teams", 1, 2)]),
        ]);

        for (max_series, names, cut) in [
            (0, &[][..], 13),
            (3, &["first"], 10),
            (9, &["first"], 10),
            (10, &["first", "second"], 3),
            (13, &["first", "second", "third"], 0),
        ] {
            let text = usage_metrics(&fleet, &Portfolio::default(), max_series);

            for name in ["first", "second", "third"] {
                assert_eq!(
                    text.contains(name),
                    names.contains(&name),
                    "{max_series}: {text}"
                );
            }
            let series = samples_of(&text);
            assert_eq!(series["usage_proxy_customer_series_cut"], cut);
            assert_eq!(series.len() - 1, 13 - usize::try_from(cut).unwrap());
        }
    }

    #[test]
    fn labels_are_escaped() {
        let name = "A \\ \"B\"\nC";
        let fleet = fleet(vec![entry(1, name, vec![row("E3", "Teams", 1, 2)])]);

        let text = usage_metrics(&fleet, &Portfolio::default(), 100);

        assert!(text.contains(r#"customer_name="A \\ \"B\"\nC","#), "{text}");
        assert_eq!(samples_of(&text).len(), 4);
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn nothing_is_lost_and_nothing_is_counted_twice(
            customers in prop::collection::vec(
                prop::collection::vec(("[AB]", "[AB]", "[XYZ]", 0..9_u64, 0..9_u64), 0..8),
                0..5,
            ),
            max_series in 0..60_usize,
        ) {
            let entries = customers.iter().enumerate().map(|(number, rows)| {
                let rows = rows.iter().map(|(product, channel, workload, active, qualified)| UsageRow {
                    channel: Some(channel.as_str().into()),
                    ..row(product, workload, *active, *qualified)
                });
                entry(number, "name", rows.collect())
            });
            let fleet = fleet(entries.collect());

            let whole = usage_metrics(&fleet, &Portfolio::default(), usize::MAX);
            let cut = usage_metrics(&fleet, &Portfolio::default(), max_series);

            let sum_of = |metric: &str| {
                let series = samples_of(&whole);
                let of_metric = series.iter().filter(|(name, _)| name.starts_with(&format!("{metric}{{")));
                of_metric.map(|(_, value)| value).sum::<u64>()
            };
            let usages: Vec<_> = fleet.entries.iter().filter_map(|entry| entry.usage.clone()).collect();
            let rows = || usages.iter().flat_map(|usage| usage.rows());
            let active: u64 = rows().map(|row| row.licenses_active).sum();
            let qualified: u64 = rows().map(|row| row.licenses_qualified).sum();
            let products = usages.iter().flat_map(|usage| aggregation::products(usage));
            let unused: u64 = products.map(|product| product.licenses_unused()).sum();
            prop_assert_eq!(sum_of("usage_proxy_customer_licenses_active"), active);
            prop_assert_eq!(sum_of("usage_proxy_customer_licenses_qualified"), qualified);
            prop_assert_eq!(sum_of("usage_proxy_customer_licenses_unused"), unused);

            let (whole, cut) = (samples_of(&whole), samples_of(&cut));
            let number = usize::try_from(cut["usage_proxy_customer_series_cut"]).unwrap();
            prop_assert!(cut.len() - 1 <= max_series);
            prop_assert_eq!(cut.len() + number, whole.len());
            let same = |(series, value): (&&str, &u64)| {
                series.ends_with("_cut") || whole.get(series) == Some(value)
            };
            prop_assert!(cut.iter().all(same));
        }
    }
}
