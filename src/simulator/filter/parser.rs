use std::{iter::Peekable, vec};

use super::{Comparison, Field, Filter, FilterError, Operator};

/// Deepest nesting of parentheses; a deeper filter is refused rather than followed.
pub(super) const DEEPEST: usize = 32;

/// Reads tokens by recursive descent.
#[derive(Debug)]
struct Parser {
    tokens: Peekable<vec::IntoIter<Token>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    Close,
}

/// Reads the whole of `text` as one filter.
pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    let mut parser = Parser {
        tokens: tokens(text)?.into_iter().peekable(),
    };
    let filter = parser.any(0)?;
    match parser.tokens.next() {
        None => Ok(filter),
        Some(token) => Err(token.instead_of("and, or or the end")),
    }
}

// === impl Parser ===

impl Parser {
    fn any(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let first = self.all(depth)?;
        let mut parts = vec![first];
        while self.skip_word("or") {
            parts.push(self.all(depth)?);
        }
        Ok(one_or(parts, Filter::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let first = self.term(depth)?;
        let mut parts = vec![first];
        while self.skip_word("and") {
            parts.push(self.term(depth)?);
        }
        Ok(one_or(parts, Filter::All))
    }

    fn term(&mut self, depth: usize) -> Result<Filter, FilterError> {
        match self.tokens.next() {
            Some(Token::Open) if depth == DEEPEST => Err(FilterError::TooDeep),
            Some(Token::Open) => {
                let inner = self.any(depth + 1)?;
                match self.tokens.next() {
                    Some(Token::Close) => Ok(inner),
                    other => Err(unexpected(other, "a closing parenthesis")),
                }
            }
            Some(Token::Word(field)) => self.comparison(&field).map(Filter::Compare),
            other => Err(unexpected(other, "a field")),
        }
    }

    fn comparison(&mut self, field: &str) -> Result<Comparison, FilterError> {
        let field = Field::parse(field)?;
        let operator = match self.tokens.next() {
            Some(Token::Word(word)) if word == "eq" => Operator::Equal,
            Some(Token::Word(word)) if word == "ne" => Operator::NotEqual,
            Some(Token::Word(word)) => return Err(FilterError::UnknownOperator(word)),
            other => return Err(unexpected(other, "eq or ne")),
        };
        match self.tokens.next() {
            Some(Token::Text(value)) => Ok(Comparison {
                field,
                operator,
                value,
            }),
            other => Err(unexpected(other, "a string in single quotes")),
        }
    }

    fn skip_word(&mut self, wanted: &str) -> bool {
        self.tokens
            .next_if(|token| matches!(token, Token::Word(word) if word == wanted))
            .is_some()
    }
}

fn one_or(mut parts: Vec<Filter>, join: fn(Vec<Filter>) -> Filter) -> Filter {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => join(parts),
    }
}

fn unexpected(token: Option<Token>, expected: &'static str) -> FilterError {
    match token {
        Some(token) => token.instead_of(expected),
        None => FilterError::Unexpected {
            found: "its end".into(),
            expected,
        },
    }
}

// === impl Token ===

impl Token {
    fn instead_of(self, expected: &'static str) -> FilterError {
        let found = match self {
            Self::Word(word) => word,
            Self::Text(text) => format!("'{text}'"),
            Self::Open => "(".into(),
            Self::Close => ")".into(),
        };
        FilterError::Unexpected { found, expected }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, after) = match first {
            '(' => (Token::Open, rest.strip_prefix('(').unwrap_or_default()),
            ')' => (Token::Close, rest.strip_prefix(')').unwrap_or_default()),
            '\'' => quoted(rest)?,
            _ => word(rest),
        };
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

/// A string in single quotes; a quote inside it is written twice.
fn quoted(text: &str) -> Result<(Token, &str), FilterError> {
    let mut value = String::new();
    let mut rest = text.strip_prefix('\'').unwrap_or_default();
    loop {
        let (part, after) = rest
            .split_once('\'')
            .ok_or(FilterError::UnterminatedString)?;
        value.push_str(part);
        match after.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => return Ok((Token::Text(value), after)),
        }
    }
}

fn word(text: &str) -> (Token, &str) {
    let end = text
        .find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '\''))
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (Token::Word(word.into()), rest)
}
