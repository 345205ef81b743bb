//! Command lines as a shell takes them apart, as far as the book writes them.

use crate::source::{Block, pages};

/// A command of the book.
#[derive(Debug)]
pub(crate) struct Command {
    /// The program and its arguments.
    pub(crate) words: Vec<String>,
    /// What it prints, where the book shows that.
    pub(crate) output: Option<String>,
    /// Where it is, for messages.
    pub(crate) place: String,
    /// Whether its output goes elsewhere, or its input comes from there.
    pub(crate) is_part: bool,
}

/// All commands of the book: those of `sh` blocks, and those behind a `$` of `console` blocks.
pub(crate) fn commands() -> Vec<Command> {
    let blocks = pages().into_values().flat_map(|page| page.blocks());
    blocks
        .flat_map(|block| match block.language.as_str() {
            "sh" => script(&block),
            "console" => session(&block),
            _ => Vec::new(),
        })
        .collect()
}

fn script(block: &Block) -> Vec<Command> {
    taken_apart(&block.text, None, &block.place)
}

fn session(block: &Block) -> Vec<Command> {
    let mut commands = Vec::new();
    let text = block.text.replace("\\\n", " ");
    assert!(text.starts_with("$ "), "{}: a session begins with a command", block.place);
    for part in format!("\n{text}").split("\n$ ").skip(1) {
        let (line, output) = part.split_once('\n').unwrap_or((part, ""));
        commands.extend(taken_apart(line, Some(output), &block.place));
    }
    commands
}

/// The commands of a text, each with the lines that its quotes go over.
fn taken_apart(text: &str, output: Option<&str>, place: &str) -> Vec<Command> {
    let empty = || Command {
        words: Vec::new(),
        output: output.map(str::to_owned),
        place: place.to_owned(),
        is_part: false,
    };
    let mut commands = vec![empty()];
    let (mut word, mut quote) = (None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let command = commands.last_mut().unwrap();
        let is_end = quote.is_none() && (letter.is_whitespace() || "|&;".contains(letter));
        if is_end {
            command.words.extend(word.take());
        }
        match (letter, quote) {
            ('#', None) if word.is_none() => {
                // Up to the end of the line.
                letters.by_ref().find(|letter| *letter == '\n');
                commands.push(empty());
            }
            ('|', None) => {
                command.is_part = true;
                commands.push(Command { is_part: true, ..empty() });
            }
            ('&' | ';' | '\n', None) => commands.push(empty()),
            _ if is_end => {}
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            _ if quote == Some(letter) => quote = None,
            // A line that goes on in the next one.
            ('\\', None) => {
                if let Some(next) = letters.next().filter(|next| *next != '\n') {
                    word.get_or_insert_default().push(next);
                }
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    assert!(quote.is_none(), "{place}: a quote has no end: {text}");
    commands.last_mut().unwrap().words.extend(word);
    commands.retain(|command| !command.words.is_empty());
    for command in &mut commands {
        // What goes into a file, or comes from one, is no argument.
        if let Some(end) = command.words.iter().position(|word| word.starts_with(['>', '<'])) {
            command.words.truncate(end);
            command.is_part = true;
        }
    }
    commands
}

#[test]
fn a_line_is_taken_apart_as_a_shell_does() {
    let words = |line: &str| -> Vec<Vec<String>> {
        taken_apart(line, None, "test").into_iter().map(|command| command.words).collect()
    };
    assert_eq!(words("a 'b c' \"d\"e f\\ g  # h"), [["a", "b c", "de", "f g"]]);
    assert_eq!(words("a | b && c d"), [vec!["a"], vec!["b"], vec!["c", "d"]]);
    assert_eq!(words("a '{.b#c}' > d"), [["a", "{.b#c}"]]);
    assert_eq!(
        words("a \\\n  b\nc 'd\ne'\n# f\ng # h\ni"),
        [vec!["a", "b"], vec!["c", "d\ne"], vec!["g"], vec!["i"]]
    );
    assert!(words("# a").is_empty());
}
