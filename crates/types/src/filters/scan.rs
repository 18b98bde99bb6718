//! The words of a filter, cut as upstream's scanner cuts them: what a rune means depends on whether an operator stood
//! before it, and mistakes have upstream's words.

/// What a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// `[A-Za-z0-9_]+`.
    Field,
    /// What stands behind an operator.
    Value,
    /// Between `"`, `/` or `|`, with them.
    Quoted,
    /// `,` or `.`.
    Separator,
    /// Of `=`, `!` and `~`.
    Operator,
    /// See [`Scanner::mistake`].
    Illegal,
    /// The end, or a rune with which nothing begins.
    Other,
}

/// A word.
#[derive(Clone, Copy, Debug)]
pub struct Word<'a> {
    pub token: Token,
    /// Where it begins.
    pub at: usize,
    pub text: &'a str,
}

/// The next rune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rune {
    End,
    Illegal,
    Char(char),
}

/// Cuts a text into words.
pub struct Scanner<'a> {
    text: &'a str,
    /// Where the rune that was read last begins, and ends.
    from: usize,
    to: usize,
    /// A value comes next.
    value: bool,
    mistake: Option<&'static str>,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, from: 0, to: 0, value: false, mistake: None }
    }

    /// What comes after all that was read.
    pub fn at(&self) -> usize {
        self.to
    }

    /// The first mistake.
    pub fn mistake(&self) -> &'static str {
        self.mistake.unwrap_or_default()
    }

    pub fn peek(&mut self) -> Rune {
        let (from, to) = (self.from, self.to);
        let rune = self.next();
        (self.from, self.to) = (from, to);
        rune
    }

    pub fn scan(&mut self) -> Word<'a> {
        let mut rune = self.next();
        while let Rune::Char(c) = rune
            && c.is_whitespace()
        {
            rune = self.next();
        }
        let at = self.from;
        let token = match rune {
            Rune::End => Token::Other,
            Rune::Illegal => Token::Illegal,
            Rune::Char(quote @ ('"' | '/' | '|')) if self.quoted(quote) => Token::Quoted,
            Rune::Char('"' | '/' | '|') => Token::Illegal,
            Rune::Char(',' | '.') => {
                self.value = false;
                Token::Separator
            }
            Rune::Char('=' | '!' | '~') => {
                self.take_while(|c| matches!(c, '=' | '!' | '~'));
                self.value = true;
                Token::Operator
            }
            Rune::Char(_) if self.value => {
                self.take_while(|c| c != ',' && !c.is_whitespace() && !c.is_control());
                self.value = false;
                Token::Value
            }
            Rune::Char(c) if is_of_field(c) => {
                self.take_while(is_of_field);
                Token::Field
            }
            Rune::Char(_) => Token::Other,
        };
        Word { token, at, text: &self.text[at..self.to] }
    }

    fn next(&mut self) -> Rune {
        if self.from >= self.text.len() {
            return Rune::End;
        }
        self.from = self.to;
        let Some(c) = self.text[self.to..].chars().next() else { return Rune::End };
        self.to += c.len_utf8();
        match c {
            char::REPLACEMENT_CHARACTER => self.illegal("rune error"),
            '\0' => self.illegal("unexpected null"),
            c => Rune::Char(c),
        }
    }

    fn illegal(&mut self, why: &'static str) -> Rune {
        self.mistake.get_or_insert(why);
        Rune::Illegal
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) {
        while let Rune::Char(c) = self.peek()
            && belongs(c)
        {
            self.next();
        }
    }

    /// Reads up to the closing quote; whether that is there, and all escapes are some.
    fn quoted(&mut self, quote: char) -> bool {
        let mut legal = true;
        let mut rune = self.next();
        loop {
            rune = match rune {
                Rune::Char(c) if c == quote => return legal,
                Rune::End | Rune::Illegal | Rune::Char('\n') => {
                    self.illegal("quoted literal not terminated");
                    return false;
                }
                Rune::Char('\\') => match self.escape(quote) {
                    Ok(after) => after,
                    Err(after) => {
                        legal = false;
                        after
                    }
                },
                Rune::Char(_) => self.next(),
            };
        }
    }

    /// Reads what follows a backslash; gives the rune after it, as an error if it is no escape.
    fn escape(&mut self, quote: char) -> Result<Rune, Rune> {
        let rune = self.next();
        match rune {
            Rune::Char('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => Ok(self.next()),
            Rune::Char(c) if c == quote => Ok(self.next()),
            Rune::Char('0'..='7') => self.digits(rune, 8, 3),
            Rune::Char(c @ ('x' | 'u' | 'U')) => {
                let first = self.next();
                self.digits(first, 16, digits_of(c))
            }
            _ => {
                self.illegal("illegal escape sequence");
                Err(rune)
            }
        }
    }

    fn digits(&mut self, first: Rune, radix: u32, count: usize) -> Result<Rune, Rune> {
        let mut rune = first;
        for _ in 0..count {
            match rune {
                Rune::Char(c) if c.is_digit(radix) => rune = self.next(),
                _ => {
                    self.illegal("illegal numeric escape sequence");
                    return Err(rune);
                }
            }
        }
        Ok(rune)
    }
}

fn is_of_field(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// How many hexadecimal digits follow `\x`, `\u` and `\U`.
fn digits_of(escape: char) -> usize {
    match escape {
        'x' => 2,
        'u' => 4,
        _ => 8,
    }
}

/// What a [`Token::Quoted`] word says; `None` where a number is too large for what it stands for.
pub fn unquote(word: &str) -> Option<String> {
    let inner = &word[1..word.len() - 1];
    let mut bytes = Vec::new();
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            bytes.extend(c.to_string().bytes());
            continue;
        }
        let escape = rest.next()?;
        let mut number = |first: &str, radix, count| {
            let digits: String = first.chars().chain(rest.by_ref().take(count)).collect();
            u32::from_str_radix(&digits, radix).ok()
        };
        bytes.push(match escape {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            'x' => u8::try_from(number("", 16, 2)?).ok()?,
            '0'..='7' => u8::try_from(number(&escape.to_string(), 8, 2)?).ok()?,
            'u' | 'U' => {
                let code = number("", 16, digits_of(escape))?;
                let surrogate = (0xd800..0xe000).contains(&code).then_some(char::REPLACEMENT_CHARACTER);
                let c = surrogate.or(char::from_u32(code))?;
                bytes.extend(c.to_string().bytes());
                continue;
            }
            // A backslash, or the quote.
            c => {
                bytes.extend(c.to_string().bytes());
                continue;
            }
        });
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
