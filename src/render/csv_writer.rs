//! CSV lines (RFC 4180) for programs and for spreadsheets.

use std::borrow::Cow;

/// Tells Excel that the file is UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The character between the cells of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CsvSeparator {
    /// A comma.
    #[default]
    Comma,
    /// A semicolon, as spreadsheets expect where the comma separates decimals. Numbers have that comma
    /// then: such a spreadsheet takes `12.5` for a date.
    Semicolon,
}

/// The reader of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CsvReader {
    /// A program: text and numbers are as in JSON.
    Program,
    /// A spreadsheet: the table begins with a byte-order mark, and no text is taken for a formula.
    Spreadsheet(CsvSeparator),
}

/// Writes lines, each ended by CRLF. An absent value is an empty cell, never a zero.
#[derive(Debug)]
pub(super) struct CsvWriter {
    lines: csv::Writer<Vec<u8>>,
    reader: CsvReader,
}

// === impl CsvWriter ===

impl CsvWriter {
    pub(super) fn new(reader: CsvReader) -> Self {
        let (start, separator) = match reader {
            CsvReader::Program => (&[][..], b','),
            CsvReader::Spreadsheet(CsvSeparator::Comma) => (BYTE_ORDER_MARK, b','),
            CsvReader::Spreadsheet(CsvSeparator::Semicolon) => (BYTE_ORDER_MARK, b';'),
        };
        let lines = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .delimiter(separator)
            .from_writer(start.to_vec());
        Self { lines, reader }
    }

    /// Returns the cell of a foreign text.
    pub(super) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.reader {
            CsvReader::Program => Cow::Borrowed(text),
            CsvReader::Spreadsheet(_) => Cow::Owned(escape_formulas(text)),
        }
    }

    /// Returns the cell of a number, as it is written in JSON.
    pub(super) fn decimal(&self, number: Option<f64>) -> String {
        self.number(number.map_or_else(String::new, |number| {
            serde_json::Value::from(number).to_string()
        }))
    }

    /// Returns the cell of a number in JSON.
    pub(super) fn number(&self, json: String) -> String {
        match self.reader {
            CsvReader::Spreadsheet(CsvSeparator::Semicolon) => json.replace('.', ","),
            CsvReader::Program | CsvReader::Spreadsheet(CsvSeparator::Comma) => json,
        }
    }

    /// Writes a line.
    pub(super) fn write<C: AsRef<[u8]>>(
        &mut self,
        cells: impl IntoIterator<Item = C>,
    ) -> csv::Result<()> {
        self.lines.write_record(cells)
    }

    /// Returns the table.
    pub(super) fn finish(self) -> csv::Result<Vec<u8>> {
        let table = self.lines.into_inner();
        table.map_err(|error| std::io::Error::other(error.to_string()).into())
    }
}

/// Puts an apostrophe before anything that a spreadsheet would run as a formula (OWASP, "CSV
/// Injection").
///
/// A formula starts a cell. If the spreadsheet's list separator is not ours, a cell may also start after
/// a separator or line break inside the text, even within quotes.
fn escape_formulas(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 1);
    let mut begins_cell = true;
    for character in text.chars() {
        if begins_cell && matches!(character, '=' | '+' | '-' | '@') {
            safe.push('\'');
        }
        begins_cell = match character {
            ',' | ';' | '\t' | '\n' | '\r' => true,
            '"' => begins_cell,
            _ => false,
        };
        safe.push(character);
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(reader: CsvReader) -> String {
        let mut writer = CsvWriter::new(reader);
        let (name, percent) = (writer.text("-a;b"), writer.decimal(Some(12.5)));
        let cells = [name, percent.into(), writer.decimal(None).into()];
        writer.write(cells.map(Cow::into_owned)).unwrap();
        String::from_utf8(writer.finish().unwrap()).unwrap()
    }

    #[test]
    fn numbers_have_a_decimal_comma_where_semicolons_separate_cells() {
        use CsvReader::{Program, Spreadsheet};

        assert_eq!(table(Program), "-a;b,12.5,\r\n");
        assert_eq!(
            table(Spreadsheet(CsvSeparator::Comma)),
            "\u{feff}'-a;b,12.5,\r\n"
        );
        assert_eq!(
            table(Spreadsheet(CsvSeparator::Semicolon)),
            "\u{feff}\"'-a;b\";12,5;\r\n"
        );
    }
}
