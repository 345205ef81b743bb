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
    let text = block.text.replace("\\\n", " ");
    text.lines().flat_map(|line| line_of(line, None, &block.place)).collect()
}

fn session(block: &Block) -> Vec<Command> {
    let mut commands = Vec::new();
    let text = block.text.replace("\\\n", " ");
    assert!(text.starts_with("$ "), "{}: a session begins with a command", block.place);
    for part in format!("\n{text}").split("\n$ ").skip(1) {
        let (line, output) = part.split_once('\n').unwrap_or((part, ""));
        commands.extend(line_of(line, Some(output.to_owned()), &block.place));
    }
    commands
}

/// The commands of a line.
fn line_of(line: &str, output: Option<String>, place: &str) -> Vec<Command> {
    let mut commands = vec![Vec::new()];
    let (mut word, mut is_word, mut quote, mut is_part) = (String::new(), false, None, false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        let is_end = quote.is_none() && (letter.is_whitespace() || "|&;".contains(letter));
        if is_end && is_word {
            commands.last_mut().unwrap().push(std::mem::take(&mut word));
            is_word = false;
        }
        match (letter, quote) {
            ('#', None) if !is_word => break,
            ('|' | '&' | ';', None) => {
                is_part |= letter == '|';
                commands.push(Vec::new());
            }
            _ if is_end => {}
            ('\'' | '"', None) => (quote, is_word) = (Some(letter), true),
            _ if quote == Some(letter) => quote = None,
            ('\\', None) => word.extend(letters.next()),
            _ => {
                word.push(letter);
                is_word = true;
            }
        }
    }
    assert!(quote.is_none(), "{place}: a quote has no end: {line}");
    if is_word {
        commands.last_mut().unwrap().push(word);
    }
    commands.retain(|words| !words.is_empty());
    let command = |words: Vec<String>| {
        let is_part = is_part || words.iter().any(|word| word.starts_with(['>', '<']));
        // What goes into a file is no argument.
        let words = words.into_iter().take_while(|word| !word.starts_with(['>', '<'])).collect();
        Command { words, output: output.clone(), place: place.to_owned(), is_part }
    };
    commands.into_iter().map(command).collect()
}

#[test]
fn a_line_is_taken_apart_as_a_shell_does() {
    let words = |line: &str| -> Vec<Vec<String>> {
        line_of(line, None, "test").into_iter().map(|command| command.words).collect()
    };
    assert_eq!(words("a 'b c' \"d\"e   # f"), [["a", "b c", "de"]]);
    assert_eq!(words("a | b && c d"), [vec!["a"], vec!["b"], vec!["c", "d"]]);
    assert_eq!(words("a '{.b#c}' > d"), [["a", "{.b#c}"]]);
    assert!(words("# a").is_empty());
}
