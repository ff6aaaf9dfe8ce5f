//! `usage-proxy get`: gets usage from a running proxy, and prints it.

mod all_customers;
mod customer_lookup;
mod freshness;
mod problem;
mod proxy_client;
mod table;

use clap::{Args, ValueEnum};
use http::StatusCode;
use secrecy::SecretString;

use self::{
    customer_lookup::CustomerMatch,
    freshness::ReplyFreshness,
    problem::ProxyProblem,
    proxy_client::{ProxyArgs, ProxyClient, ProxyReply},
    table::UsageReply,
};
use super::{
    CliError, eprint_line, print_text,
    terminal::{TerminalStyle, sanitize_lines, while_waiting},
};
use crate::{
    config::secret,
    domain::{CustomerId, ProcessedDate},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy get 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04
  usage-proxy get contoso                                the customer with this in its name
  usage-proxy get contoso --date 2017-03-09
  usage-proxy get contoso --format csv > usage.csv
  usage-proxy get --all | head                           who has the most unused licenses
  usage-proxy get --all --format csv > unused.csv        a line per customer and product
  usage-proxy get contoso --url https://usage.example.com --key-file ~/.config/usage-proxy/key

The key is read from a file, because other users of this machine can see command lines. With https, \
the proxy's certificate must be one that this machine trusts, or of a CA in --ca-file.

--all prints what the proxy has of all customers that this caller may read, without a call to Partner \
Center for each. Standard error says which customers are missing or have an older date.

Environment:
  USAGE_PROXY_URL       instead of --url
  USAGE_PROXY_KEY_FILE  instead of --key-file
  USAGE_PROXY_CA_FILE   instead of --ca-file
  NO_COLOR              if not empty: no colours
  LC_ALL, LC_CTYPE, LANG
                        if none names UTF-8, bars are drawn in ASCII

Files:
  FILE of --key-file    the key, and nothing else; only for its owner

Exit codes:
  0  printed
  1  the proxy cannot be reached, or has no data at all; its message goes to standard error
  2  wrong use: a bad date or URL, no such file, or a name of several customers";

/// Options of `get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// GUID of the customer; or its name or a part of it, if the proxy has the list of customers.
    #[arg(value_name = "CUSTOMER", required_unless_present = "all")]
    customer: Option<String>,
    /// All customers and their products, most unused licenses first.
    #[arg(long, conflicts_with = "customer")]
    all: bool,
    /// Processed date (YYYY-MM-DD); without it, the newest.
    #[arg(long, value_name = "DATE", value_parser = ProcessedDate::parse)]
    date: Option<ProcessedDate>,
    /// Format of the output.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = OutputFormat::Table)]
    format: OutputFormat,
    #[command(flatten)]
    proxy: ProxyArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// For people: a customer with bars, totals, and the age of the data.
    Table,
    /// As the proxy sends it; all customers in one document.
    Json,
    /// As the proxy sends it: a line per product and workload, or per customer and product.
    Csv,
}

pub(super) async fn run(args: &GetArgs) -> Result<(), CliError> {
    let key = args.proxy.read_key()?;
    let proxy = ProxyClient::new(&args.proxy, key)?;
    let asking = format!("asking {}", proxy.display_url());
    let Some(customer) = &args.customer else {
        let fetched = all_customers::fetch(&proxy, args.date, args.format);
        return while_waiting(&asking, fetched).await?.print();
    };
    while_waiting(&asking, fetch_usage(&proxy, customer, args))
        .await
        .and_then(|(reply, found)| {
            if reply.status != StatusCode::OK {
                return Err(ProxyProblem::from_reply(&reply)
                    .with_customer(found.as_ref().map(ToString::to_string))
                    .into_error());
            }
            print_usage(&reply, found, args)
        })
}

/// Gets the answer, and the customer if it was found by its name.
async fn fetch_usage(
    proxy: &ProxyClient,
    customer: &str,
    args: &GetArgs,
) -> Result<(ProxyReply, Option<CustomerMatch>), CliError> {
    let (customer, found) = match CustomerId::parse(customer) {
        Ok(customer) => (customer, None),
        Err(_) => {
            let found = customer_lookup::find_by_name(proxy, customer).await?;
            (found.id, Some(found))
        }
    };
    let path = ["v1", "customers", &customer.to_string(), "usage"];
    let date = args.date.map(|date| date.to_string());
    let query: Vec<_> = date
        .as_deref()
        .map(|date| ("processedDate", date))
        .into_iter()
        .collect();
    let reply = proxy.get(&path, &query, args.format.media_type()).await?;
    Ok((reply, found))
}

fn print_usage(
    reply: &ProxyReply,
    found: Option<CustomerMatch>,
    args: &GetArgs,
) -> Result<(), CliError> {
    let look = TerminalStyle::of_stdout();
    let format = args.format;
    if format == OutputFormat::Table {
        let mut usage: UsageReply = serde_json::from_slice(&reply.body).map_err(|error| {
            CliError::other(format!(
                "not an answer of a usage-proxy: {error}; check --url"
            ))
        })?;
        usage.set_customer_name(found.map(|found| found.name));
        if args.date.is_some() {
            usage.set_dated();
        }
        let freshness = ReplyFreshness::from_headers(&reply.headers);
        return print_text(table::render(&usage, &freshness, look).as_bytes());
    }
    print_body(&reply.body)
}

/// Prints what the proxy has sent.
fn print_body(body: &[u8]) -> Result<(), CliError> {
    if !TerminalStyle::of_stdout().is_terminal {
        return print_text(body);
    }
    // On a terminal: names must not control it, and the prompt begins a line of its own.
    let text = sanitize_lines(&String::from_utf8_lossy(body).replace("\r\n", "\n"));
    print_text(format!("{}\n", text.trim_end()).as_bytes())
}

// === impl OutputFormat ===

impl OutputFormat {
    fn media_type(self) -> &'static str {
        match self {
            Self::Table | Self::Json => "application/json",
            Self::Csv => "text/csv",
        }
    }
}

// === impl ProxyArgs ===

impl ProxyArgs {
    /// Reads the key, if a file is named.
    fn read_key(&self) -> Result<Option<SecretString>, CliError> {
        let Some(file) = &self.key_file else {
            return Ok(None);
        };
        if let Some(warning) = secret::permissions_warning(file) {
            eprint_line(format_args!("warning: --key-file: {warning}"));
        }
        let key = secret::read_secret(file)
            .map_err(|error| CliError::usage(format!("--key-file: {error}")))?;
        Ok(Some(key))
    }
}
