//! Whatever a caller may read, every number is that of its own rows.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::UsagePercent;

/// The customers of a generated fleet.
const CUSTOMERS: usize = 6;

/// A fleet, a portfolio, a caller and a query.
#[derive(Clone, Debug)]
struct FleetCase {
    entries: Vec<FleetEntry>,
    rules: Vec<(String, ProductRule)>,
    group: HashSet<CustomerId>,
    may_read: HashSet<CustomerId>,
    requested: Option<HashSet<CustomerId>>,
    in_group: bool,
    service: Option<String>,
    product: Option<String>,
    channel: Option<String>,
    min_unused: u64,
    below: Option<u64>,
}

/// The numbers of one customer and product, or of a sum of them.
#[derive(Clone, Debug, Default, PartialEq)]
struct NaiveSums {
    qualified: u64,
    active: u64,
    unused: u64,
    /// Ten-thousandths and priced licenses by currency.
    cost: BTreeMap<String, (u64, u64)>,
}

/// One customer and product.
#[derive(Clone, Debug)]
struct NaiveProduct {
    customer: usize,
    names: (String, String),
    service: String,
    workloads: Vec<(String, u64, u64)>,
    sums: NaiveSums,
}

fn usage_row() -> impl Strategy<Value = UsageRow> {
    let names = ("[AB]", "[XY]", "[st]", prop::option::of("[cd]"));
    let counts = (0..20_u64, 0..20_u64, prop::bool::ANY);
    (names, counts).prop_map(
        |((product, workload, service, channel), (active, qualified, is_new))| {
            let row = UsageRow {
                service_name: service.into(),
                channel: channel.map(Into::into),
                ..row(&product, &workload, active, qualified)
            };
            dated(if is_new { "2017-03-09" } else { "2017-03-01" }, row)
        },
    )
}

fn customer_entry(number: usize) -> impl Strategy<Value = FleetEntry> {
    let rows = prop::option::of(prop::collection::vec(usage_row(), 0..5));
    (rows, prop::bool::weighted(0.2)).prop_map(move |(rows, failed)| {
        let entry = entry(number, &format!("Customer {number}"), rows);
        if !failed {
            return entry;
        }
        FleetEntry {
            status: FleetStatus::Failed,
            failure: Some("no-relationship"),
            ..entry
        }
    })
}

fn product_rule() -> impl Strategy<Value = ProductRule> {
    (
        prop::option::of("Name [12]"),
        prop::option::of(("EUR|USD", 0..200_000_u64)),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(name, price, exclude)| {
            let price = price
                .as_ref()
                .map(|(currency, amount)| (currency.as_str(), *amount));
            rule(name.as_deref(), price, exclude)
        })
}

fn some_customers() -> impl Strategy<Value = HashSet<CustomerId>> {
    let numbers = prop::collection::hash_set(0..CUSTOMERS, 0..=CUSTOMERS);
    numbers.prop_map(|numbers| numbers.into_iter().map(numbered_id).collect())
}

fn fleet_case() -> impl Strategy<Value = FleetCase> {
    let entries: Vec<_> = (0..CUSTOMERS).map(customer_entry).collect();
    let rules = prop::collection::btree_map("[ab]", product_rule(), 0..3);
    let customers = (
        some_customers(),
        some_customers(),
        prop::option::weighted(0.3, some_customers()),
        prop::bool::weighted(0.3),
    );
    let filters = (
        prop::option::weighted(0.2, "[sStT]"),
        prop::option::weighted(0.2, "[aAbB]|name 1"),
        prop::option::weighted(0.2, "[cCd]"),
    );
    let conditions = (0..4_u64, prop::option::weighted(0.3, 0..150_u64));
    (entries, rules, customers, filters, conditions).prop_map(
        |(entries, rules, customers, filters, conditions)| FleetCase {
            entries,
            rules: rules.into_iter().collect(),
            group: customers.0,
            may_read: customers.1,
            requested: customers.2,
            in_group: customers.3,
            service: filters.0,
            product: filters.1,
            channel: filters.2,
            min_unused: conditions.0,
            below: conditions.1,
        },
    )
}

// === impl FleetCase ===

impl FleetCase {
    fn request(&self, view: FleetView) -> FleetDocumentRequest {
        let fleet = fleet(self.entries.clone());
        let mut portfolio = Portfolio::default();
        for (product, rule) in &self.rules {
            portfolio.add_rule(ProductSelector::Name(product), rule.clone());
        }
        portfolio.add_group("group".into(), self.group.clone());
        let group = self.in_group.then_some(&self.group);
        let may_read = |id| self.may_read.contains(&id);
        let (service, product) = (self.service.as_deref(), self.product.as_deref());
        let is_total = view == FleetView::Products;
        let below = self.below.filter(|_| !is_total);
        FleetDocumentRequest {
            scope: FleetScope::new(&fleet, may_read, self.requested.as_ref(), group),
            fleet: Arc::new(fleet),
            portfolio: Arc::new(portfolio),
            query: FleetQuery {
                products: FleetProductFilter::new(service, product, self.channel.as_deref()),
                min_unused: if is_total { 0 } else { self.min_unused },
                below: below.map(|below| PercentBound::parse(&below.to_string()).unwrap()),
                ..FleetQuery::all(view)
            },
            format: FleetFormat::Json,
        }
    }

    fn counts(&self, customer: usize) -> bool {
        let id = numbered_id(customer);
        self.may_read.contains(&id)
            && self.requested.as_ref().is_none_or(|set| set.contains(&id))
            && (!self.in_group || self.group.contains(&id))
    }

    fn rule(&self, product: &str) -> ProductRule {
        let mut rules = self.rules.iter();
        let found = rules.find(|(name, _)| *name == product.to_lowercase());
        found.map(|(_, rule)| rule.clone()).unwrap_or_default()
    }

    /// Computes every product of the customers that count from the rows alone, and the number that is
    /// excluded.
    fn naive_products(&self) -> (Vec<NaiveProduct>, usize) {
        let mut products = Vec::new();
        let mut excluded = 0;
        for (customer, entry) in self.entries.iter().enumerate() {
            let mut of_customer = BTreeMap::<_, Vec<UsageRow>>::new();
            let usage = entry.usage.iter().filter(|_| self.counts(customer));
            for row in usage.flat_map(|usage| usage.rows()) {
                let key = (&row.service_name, &row.product_name, &row.channel);
                of_customer.entry(key).or_default().push(row.clone());
            }
            for ((service, product, channel), rows) in of_customer {
                let rule = self.rule(product);
                let shown = rule.display_name.clone().unwrap_or(Arc::clone(product));
                let is = |wanted: &Option<String>, name: &str| {
                    wanted
                        .as_ref()
                        .is_none_or(|wanted| wanted.eq_ignore_ascii_case(name))
                };
                let fits = is(&self.service, service)
                    && (is(&self.product, product) || is(&self.product, &shown))
                    && is(&self.channel, channel.as_deref().unwrap_or("none"));
                if !fits {
                    continue;
                }
                if rule.exclude {
                    excluded += 1;
                    continue;
                }
                products.push(NaiveProduct::new(customer, &shown, &rule, service, &rows));
            }
        }
        (products, excluded)
    }

    fn passes(&self, sums: &NaiveSums) -> bool {
        let is_below = |below: u64| sums.active * 100 < below * sums.qualified;
        sums.unused >= self.min_unused && self.below.is_none_or(is_below)
    }
}

// === impl NaiveProduct ===

impl NaiveProduct {
    fn new(
        customer: usize,
        shown: &str,
        rule: &ProductRule,
        service: &str,
        rows: &[UsageRow],
    ) -> Self {
        let qualified = rows.iter().map(|row| row.licenses_qualified).max().unwrap();
        let active = rows.iter().map(|row| row.licenses_active).max().unwrap();
        let unused = qualified.saturating_sub(active);
        let cost = rule.price.iter().map(|price| {
            let amount = price.ten_thousandths * unused;
            (price.currency.to_string(), (amount, unused))
        });
        let workloads = rows.iter().map(|row| {
            let name = row.workload_name.to_string();
            (name, row.licenses_qualified, row.licenses_active)
        });
        Self {
            customer,
            names: (rows[0].product_name.to_string(), shown.to_owned()),
            service: service.to_owned(),
            workloads: workloads.collect(),
            sums: NaiveSums {
                qualified,
                active,
                unused,
                cost: cost.collect(),
            },
        }
    }
}

// === impl NaiveSums ===

impl NaiveSums {
    fn of<'a>(products: impl IntoIterator<Item = &'a NaiveProduct>) -> Self {
        let mut sums = Self::default();
        for product in products {
            sums.qualified += product.sums.qualified;
            sums.active += product.sums.active;
            sums.unused += product.sums.unused;
            for (currency, (amount, licenses)) in &product.sums.cost {
                let cost = sums.cost.entry(currency.clone()).or_default();
                *cost = (cost.0 + amount, cost.1 + licenses);
            }
        }
        sums
    }

    /// Adds the fields of the sums to the fields of an object.
    fn with(&self, mut fields: Value) -> Value {
        fields["licensesQualified"] = json!(self.qualified);
        fields["licensesActive"] = json!(self.active);
        fields["licensesUnused"] = json!(self.unused);
        if !self.cost.is_empty() {
            let cost = self.cost.iter().map(|(currency, (amount, licenses))| {
                let per_month = format!("{}.{:04}", amount / 10_000, amount % 10_000);
                let per_month: f64 = per_month.parse().unwrap();
                json!({ "currency": currency, "perMonth": per_month, "licensesPriced": licenses })
            });
            fields["unusedCost"] = cost.collect();
        }
        fields
    }

    fn with_percent(&self, fields: Value) -> Value {
        let mut fields = self.with(fields);
        fields["usagePercent"] = percent(self.active, self.qualified);
        fields
    }
}

fn percent(active: u64, qualified: u64) -> Value {
    json!(UsagePercent::new(active, qualified).map(UsagePercent::as_f64))
}

fn customers_of<'a>(products: impl IntoIterator<Item = &'a NaiveProduct>) -> usize {
    let customers = products.into_iter().map(|product| product.customer);
    customers.collect::<HashSet<_>>().len()
}

/// Groups products by a name.
fn by_name<K: Ord>(
    products: &[NaiveProduct],
    name: impl Fn(&NaiveProduct) -> K,
) -> BTreeMap<K, Vec<&NaiveProduct>> {
    let mut groups = BTreeMap::<K, Vec<_>>::new();
    for product in products {
        groups.entry(name(product)).or_default().push(product);
    }
    groups
}

/// Returns items in one order, for comparison.
fn sorted(items: &Value) -> Vec<String> {
    let items = items.as_array().unwrap().iter();
    let mut items: Vec<_> = items.map(Value::to_string).collect();
    items.sort();
    items
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn totals_are_of_the_rows_that_the_caller_may_read(case in fleet_case()) {
        let answer = json_of(&case.request(FleetView::Products));

        let (products, excluded) = case.naive_products();
        let entries = case.entries.iter().enumerate();
        let visible: Vec<_> = entries.filter(|(number, _)| case.counts(*number)).collect();
        let count = |status| {
            visible.iter().filter(|(_, entry)| entry.status == status).count()
        };
        let (current, empty) = (count(FleetStatus::Current), count(FleetStatus::Empty));
        let customers = json!({
            "total": visible.len(), "current": current, "stale": 0, "empty": empty,
            "failed": count(FleetStatus::Failed), "notFetched": count(FleetStatus::NotFetched),
        });
        prop_assert_eq!(&answer["customers"], &customers);
        prop_assert_eq!(&answer["complete"], current + empty == visible.len());
        prop_assert_eq!(answer["failed"].as_array().unwrap().len(), count(FleetStatus::Failed));
        prop_assert_eq!(&answer["excluded"], excluded);
        prop_assert_eq!(&answer["totals"], &NaiveSums::of(&products).with(json!({})));
        let services = by_name(&products, |product| product.service.clone());
        let services: Value = services.into_iter().map(|(name, products)| {
            let customers = customers_of(products.iter().copied());
            let fields = json!({ "serviceName": name, "customers": customers });
            NaiveSums::of(products).with_percent(fields)
        }).collect();
        prop_assert_eq!(&answer["services"], &services);
        let by_product = by_name(&products, |product| product.names.clone());
        let by_product: Value = by_product.into_iter().map(|((name, shown), products)| {
            let customers = customers_of(products.iter().copied());
            let fields =
                json!({ "productName": name, "displayName": shown, "customers": customers });
            NaiveSums::of(products).with_percent(fields)
        }).collect();
        prop_assert_eq!(&answer["products"], &by_product);
        let workloads: Value = ["X", "Y"].into_iter().filter_map(|name| {
            let has = |product: &&NaiveProduct| product.workloads.iter().any(|(of, ..)| of == name);
            let having: Vec<_> = products.iter().filter(has).collect();
            let rows = having.iter().flat_map(|product| &product.workloads);
            let rows = rows.filter(|(of, ..)| of == name);
            let (qualified, active) = rows.fold((0, 0), |sums, (_, qualified, active)| {
                (sums.0 + qualified, sums.1 + active)
            });
            (!having.is_empty()).then(|| json!({
                "workloadName": name, "customers": customers_of(having),
                "licensesQualified": qualified, "licensesActive": active,
                "usagePercent": percent(active, qualified),
            }))
        }).collect();
        prop_assert_eq!(&answer["workloads"], &workloads);
    }

    #[test]
    fn rows_are_those_that_the_caller_may_read(case in fleet_case()) {
        let unused = json_of(&case.request(FleetView::Unused));
        let customers = json_of(&case.request(FleetView::Customers));

        let (products, excluded) = case.naive_products();
        let counts = ["licensesQualified", "licensesActive", "licensesUnused"];
        let expected: Value = products.iter().filter(|product| case.passes(&product.sums)).map(|product| {
            let id = numbered_id(product.customer).to_string();
            let (name, shown) = &product.names;
            let fields = json!({ "customerId": id, "productName": name, "displayName": shown });
            product.sums.with_percent(fields)
        }).collect();
        let mut rows = unused["items"].clone();
        for row in rows.as_array_mut().unwrap() {
            let row = row.as_object_mut().unwrap();
            for field in ["customerName", "busiestWorkload", "processedDate"] {
                row.remove(field);
            }
        }
        prop_assert_eq!(sorted(&rows), sorted(&expected));
        prop_assert_eq!(&unused["excluded"], excluded);
        let filtered = case.service.is_some() || case.product.is_some() || case.channel.is_some();
        let expected: Value = case.entries.iter().enumerate().filter_map(|(number, entry)| {
            let own: Vec<_> = products.iter().filter(|product| product.customer == number).collect();
            let is_known = entry.usage.is_some();
            let sums = NaiveSums::of(own.iter().copied());
            let passes = if is_known {
                case.passes(&sums)
            } else {
                case.min_unused == 0 && case.below.is_none()
            };
            let listed = case.counts(number) && passes && !(filtered && own.is_empty());
            let mut fields = json!({ "customerId": entry.customer_id.to_string() });
            if is_known {
                fields["products"] = json!(own.len());
                return listed.then(|| sums.with_percent(fields));
            }
            for field in ["products", "usagePercent"].into_iter().chain(counts) {
                fields[field] = Value::Null;
            }
            listed.then_some(fields)
        }).collect();
        let mut rows = customers["items"].clone();
        for row in rows.as_array_mut().unwrap() {
            let row = row.as_object_mut().unwrap();
            for field in ["customerName", "groups", "processedDate", "status", "fetchedAt"] {
                row.remove(field);
            }
        }
        prop_assert_eq!(sorted(&rows), sorted(&expected));
    }

    #[test]
    fn a_table_has_the_fields_of_json(case in fleet_case(), view in 0..3_usize) {
        let view = [FleetView::Products, FleetView::Customers, FleetView::Unused][view];
        let request = case.request(view);

        let answer = json_of(&request);
        let table = FleetFormat::Csv(CsvReader::Program);
        let table = render(&FleetDocumentRequest { format: table, ..request }).unwrap();

        let list = if view == FleetView::Products { "products" } else { "items" };
        let mut lines = csv::Reader::from_reader(table.as_bytes());
        let names = lines.headers().unwrap().clone();
        let lines: Vec<_> = lines.records().map(Result::unwrap).collect();
        let items = answer[list].as_array().unwrap();
        prop_assert_eq!(lines.len(), items.len());
        for (line, item) in lines.iter().zip(items) {
            let mut item = item.as_object().unwrap().clone();
            let costs = item.remove("unusedCost").unwrap_or(json!([]));
            for (name, cell) in names.iter().zip(line) {
                if let Some(currency) = name.strip_prefix("unusedCost_") {
                    let costs = costs.as_array().unwrap().iter();
                    let cost = costs.clone().find(|cost| cost["currency"] == currency);
                    let amount = cost.map(|cost| cost["perMonth"].as_f64().unwrap());
                    prop_assert_eq!(cell.parse().ok(), amount);
                    continue;
                }
                let expected = match item.remove(name).unwrap() {
                    Value::Null => String::new(),
                    Value::String(text) => text,
                    Value::Array(names) => {
                        let names = names.iter().map(|name| name.as_str().unwrap());
                        names.collect::<Vec<_>>().join("|")
                    }
                    number => number.to_string(),
                };
                prop_assert_eq!(cell, expected, "{}", name);
            }
            prop_assert!(item.is_empty(), "{:?}", item);
        }
    }

    #[test]
    fn pages_have_the_rows_of_the_whole_answer_in_any_order(
        case in fleet_case(),
        limit in 1..4_usize,
        sort in "-?(name|unused|cost|percent|date)",
    ) {
        for view in [FleetView::Customers, FleetView::Unused] {
            let mut request = case.request(view);
            request.query.sort = FleetSort::parse(&sort).unwrap();
            let whole = json_of(&request);
            request.query.limit = NonZeroUsize::new(limit);
            let mut items = Vec::new();
            loop {
                let page = json_of(&request);
                items.extend(page["items"].as_array().unwrap().clone());
                let Some(cursor) = page["nextCursor"].as_str() else {
                    break;
                };
                request.query.cursor = Some(FleetCursor::parse(cursor).unwrap());
            }
            prop_assert_eq!(&Value::Array(items), &whole["items"]);
        }
    }
}
