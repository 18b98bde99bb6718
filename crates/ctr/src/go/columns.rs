//! `text/tabwriter` of Go's standard library, as ctr uses it (aligned left, no flags).
//!
//! A cell ends with a tab. Consecutive lines that have a cell at the same place form a column, as wide as its widest
//! cell; what stands behind a line's last tab belongs to none.

/// Lines of cells, formatted when all are known.
pub struct Columns {
    min: usize,
    tab: usize,
    padding: usize,
    pad: char,
    text: String,
}

impl Columns {
    /// ctr's wide tables: `tabwriter.NewWriter(os.Stdout, 4, 8, 4, ' ', 0)`.
    pub fn wide() -> Self {
        Self { min: 4, tab: 8, padding: 4, pad: ' ', text: String::new() }
    }

    /// ctr's narrow tables: `tabwriter.NewWriter(os.Stdout, 1, 8, 1, ' ', 0)`.
    pub fn narrow() -> Self {
        Self { min: 1, padding: 1, ..Self::wide() }
    }

    /// `tabwriter.NewWriter(os.Stdout, 1, 8, 4, ' ', 0)`.
    pub fn spaced() -> Self {
        Self { min: 1, ..Self::wide() }
    }

    /// ctr's tables padded with tabs: `tabwriter.NewWriter(os.Stdout, 1, 8, 1, '\t', 0)`.
    pub fn tabs() -> Self {
        Self { pad: '\t', ..Self::narrow() }
    }

    /// Adds a line; its cells end with tabs.
    pub fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    /// The formatted text.
    pub fn finish(self) -> String {
        let lines: Vec<Vec<&str>> = self.text.lines().map(|line| line.split('\t').collect()).collect();
        let mut out = String::with_capacity(self.text.len() * 2);
        self.format(&lines, &mut Vec::new(), &mut out);
        out
    }

    /// Formats the column behind `widths`, and recursively those to its right.
    fn format(&self, lines: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut String) {
        let column = widths.len();
        let has = |line: &Vec<&str>| column + 1 < line.len();
        let mut rest = lines;
        while let Some(start) = rest.iter().position(has) {
            self.write(&rest[..start], widths, out);
            let block = &rest[start..];
            let end = block.iter().position(|line| !has(line)).unwrap_or(block.len());
            let widest = block[..end].iter().map(|line| line[column].chars().count() + self.padding).max();
            widths.push(widest.unwrap_or_default().max(self.min));
            self.format(&block[..end], widths, out);
            widths.pop();
            rest = &block[end..];
        }
        self.write(rest, widths, out);
    }

    fn write(&self, lines: &[Vec<&str>], widths: &[usize], out: &mut String) {
        for line in lines {
            for (at, cell) in line.iter().enumerate() {
                out.push_str(cell);
                if let Some(width) = widths.get(at) {
                    let used = cell.chars().count();
                    let fill = if self.pad == '\t' {
                        (width.next_multiple_of(self.tab) - used).div_ceil(self.tab)
                    } else {
                        width - used
                    };
                    out.extend(std::iter::repeat_n(self.pad, fill));
                }
            }
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Columns::narrow();
        table.line("NAME\tLABELS\t");
        table.line("default\t\t");
        assert_eq!(table.finish(), "NAME    LABELS \ndefault        \n");
    }

    #[test]
    fn padding_with_tabs_rounds_up_to_tab_stops() {
        let mut table = Columns::tabs();
        table.line("DIGEST\tSIZE\tAGE");
        table.line("0123456789\t1B\tx");
        assert_eq!(table.finish(), "DIGEST\t\tSIZE\tAGE\n0123456789\t1B\tx\n");
    }

    #[test]
    fn a_line_without_the_cell_ends_the_column() {
        let mut table = Columns::wide();
        table.line("Type:\t a");
        table.line("\t k\t v");
        table.line("plain");
        table.line("ID:\t b");
        assert_eq!(table.finish(), "Type:     a\n          k     v\nplain\nID:     b\n");
    }
}
