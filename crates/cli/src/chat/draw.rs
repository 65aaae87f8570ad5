//! A chat on the screen: a title, the history and the members beside it, what is being typed.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use unicode_width::UnicodeWidthStr;

use super::state::{Chat, Item, What, looks};
use super::wrap::wrap;
use crate::escape;
use crate::view::topic::local;
use crate::view::{MemberView, Said};

/// Columns of the members, and of the screen from which on they are shown.
const SIDE: u16 = 22;
const SIDE_FROM: u16 = 64;
/// Columns by which the lines of a message but the first are moved in.
const INDENT: usize = 6;
/// Lines of a message that are shown.
const LINES_MAX: usize = 60;
const PROMPT: &str = "> ";

/// Colours of authors: those that can be read on black and on white.
const COLOURS: [Color; 8] = [
    Color::Red,
    Color::Green,
    Color::Yellow,
    Color::Blue,
    Color::Magenta,
    Color::Cyan,
    Color::LightRed,
    Color::LightMagenta,
];

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, chat: &mut Chat) {
    let rows = [1, 0, 1, 1].map(|rows| match rows {
        0 => Constraint::Fill(1),
        rows => Constraint::Length(rows),
    });
    let [title, middle, rule, input] = Layout::vertical(rows).areas(frame.area());
    let has_side = chat.has_side && middle.width >= SIDE_FROM;
    let side = if has_side { SIDE } else { 0 };
    let columns = [Constraint::Fill(1), Constraint::Length(side)];
    let [history, side] = Layout::horizontal(columns).areas(middle);
    draw_title(frame, title, chat);
    draw_history(frame, history, chat);
    if has_side {
        draw_members(frame, side, chat);
    }
    draw_rule(frame, rule, chat);
    draw_input(frame, input, chat);
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, chat: &Chat) {
    let kind = if chat.topic.name.is_some() { "public" } else { "private" };
    let there = chat.members.iter().filter(|member| looks(member)).count();
    let label = escape::name(chat.topic.label());
    let line = Line::from(vec![
        Span::from(format!(" {label} ")).bold(),
        Span::from(format!(" {kind}, {there} of {} there", chat.members.len())),
    ]);
    frame.render_widget(Paragraph::new(line).reversed(), area);
}

fn draw_rule(frame: &mut Frame<'_>, area: Rect, chat: &Chat) {
    let text = match (chat.scroll, chat.unseen) {
        (0, _) => String::new(),
        (_, 0) => " End goes down ".to_owned(),
        (_, unseen) => format!(" {unseen} new below: End "),
    };
    let rule = "─".repeat(usize::from(area.width).saturating_sub(text.width() + 2));
    frame.render_widget(Line::from(vec![rule.dim(), text.bold(), "──".dim()]), area);
}

fn draw_input(frame: &mut Frame<'_>, area: Rect, chat: &Chat) {
    let room = usize::from(area.width).saturating_sub(PROMPT.len());
    let (text, cursor) = chat.input.view(room);
    let line = if chat.input.is_empty() {
        Line::from(vec![PROMPT.into(), "Enter says it, /help tells more".dim()])
    } else {
        Line::from(vec![PROMPT.into(), text.into()])
    };
    frame.render_widget(line, area);
    let column = u16::try_from(PROMPT.len() + cursor).unwrap_or(u16::MAX);
    let column = column.min(area.width.saturating_sub(1));
    if area.width > 0 && area.height > 0 {
        frame.set_cursor_position((area.x + column, area.y));
    }
}

fn draw_members(frame: &mut Frame<'_>, area: Rect, chat: &Chat) {
    let rows = usize::from(area.height);
    let mut lines: Vec<_> = chat.members.iter().take(rows).map(|one| member(chat, one)).collect();
    if chat.members.len() > rows && rows > 0 {
        let more = chat.members.len() - rows + 1;
        lines[rows - 1] = Line::from(vec!["│ ".dim(), format!("and {more} more").dim()]);
    }
    lines.resize(rows, Line::from("│".dim()));
    frame.render_widget(Paragraph::new(lines), area);
}

fn member(chat: &Chat, member: &MemberView) -> Line<'static> {
    let style = Style::new().fg(colour(&member.id));
    let presence = if looks(member) { "● ".green() } else { "○ ".dim() };
    // The name gives way to the id, by which nobody can pass for another.
    let tag = member.id.get(..chat.tag_len).unwrap_or(&member.id);
    let you = if member.me { " (you)" } else { "" };
    let room = usize::from(SIDE).saturating_sub(4 + 1 + tag.len() + you.len());
    let mut name = chat.who(&member.id, None);
    if let Some(shown) = name.strip_suffix(tag).and_then(|name| name.strip_suffix('·')) {
        let cut = wrap(&shown.replace(' ', "\u{a0}"), room, room).swap_remove(0);
        name = format!("{cut}·{tag}");
    }
    let style = if looks(member) { style } else { style.dim() };
    Line::from(vec!["│ ".dim(), presence, Span::styled(name, style), you.dim()])
}

fn draw_history(frame: &mut Frame<'_>, area: Rect, chat: &mut Chat) {
    let (rows, columns) = (usize::from(area.height), usize::from(area.width));
    chat.page = (rows, columns);
    let wanted = rows.saturating_add(chat.scroll);
    let mut lines = lines_from_end(chat, columns, wanted);
    if lines.len() < wanted {
        // All of it: the beginning is at the top.
        chat.scroll = lines.len().saturating_sub(rows).min(chat.scroll);
    }
    let shown: Vec<_> = lines.drain(..).skip(chat.scroll).take(rows).collect();
    if chat.scroll == 0 {
        chat.unseen = 0;
    }
    let above = rows.saturating_sub(shown.len());
    let lines = std::iter::repeat_n(Line::default(), above).chain(shown.into_iter().rev());
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
}

/// The last lines, the last first: at least `wanted`, if there are as many.
fn lines_from_end(chat: &Chat, columns: usize, wanted: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for pending in chat.pending.iter().rev() {
        let tick = pending.seq.map_or_else(|| "…".to_owned(), |seq| ticks(chat, seq));
        let id = chat.me().unwrap_or_default().to_owned();
        let text = escape::lines(&pending.text);
        lines.extend(
            message(chat, "     ", (&id, None), &text, Some(tick), columns).into_iter().rev(),
        );
    }
    let first_new = chat.new_from.map(|from| {
        let is_before = |item: &Item| item.order < from || matches!(item.what, What::Notice(_));
        chat.items.iter().position(|item| !is_before(item)).unwrap_or(usize::MAX)
    });
    for (at, item) in chat.items.iter().enumerate().rev() {
        if lines.len() >= wanted {
            break;
        }
        lines.extend(self::item(chat, item, columns).into_iter().rev());
        if first_new == Some(at) {
            lines.push(ruled("new", columns, Style::new().red()));
        }
        let day = |item: &Item| local(item.order, "%F");
        let before = at.checked_sub(1).and_then(|before| chat.items.get(before));
        if before.is_none_or(|before| day(before) != day(item)) {
            lines.push(ruled(&day(item), columns, Style::new().dim()));
        }
    }
    lines
}

/// How many lines an item takes on the screen as it was drawn last.
pub(super) fn height(chat: &Chat, item: &Item) -> usize {
    self::item(chat, item, chat.page.1).len()
}

fn item(chat: &Chat, item: &Item, columns: usize) -> Vec<Line<'static>> {
    match &item.what {
        What::Said(said) => {
            let tick = chat.is_me(&said.author).then(|| ticks(chat, said.seq));
            let author = (said.author.as_str(), said.name.as_deref());
            message(chat, &time(said), author, &said.lines(), tick, columns)
        }
        What::Notice(text) => {
            let lines = text.split('\n').flat_map(|line| wrap(line, columns, columns));
            lines.map(|line| Line::from(line.yellow())).collect()
        }
    }
}

fn time(said: &Said) -> String {
    format!("{:5}", local(said.time, "%H:%M"))
}

/// `✓` if it is on disk here, `✓✓ 3` if three others have it.
fn ticks(chat: &Chat, seq: u64) -> String {
    match chat.reached(seq) {
        0 => "✓".to_owned(),
        count => format!("✓✓ {count}"),
    }
}

/// The lines of a message, of an id and the name that it said.
fn message(
    chat: &Chat,
    time: &str,
    (author, name): (&str, Option<&str>),
    text: &[String],
    tick: Option<String>,
    columns: usize,
) -> Vec<Line<'static>> {
    let who = chat.who(author, name);
    let first = text.first().map_or("", String::as_str);
    let (who, first) = match first.strip_prefix("/me ") {
        Some(does) => (format!("* {who}"), does),
        None => (who, first),
    };
    let head = time.width() + 1 + who.width() + 1;
    let rest = columns.saturating_sub(INDENT).max(1);
    // A name that fills the line stands above.
    let is_above = head + 8 > columns;
    let mut parts = match is_above {
        true => vec![String::new()],
        false => Vec::new(),
    };
    let room = if is_above { rest } else { columns - head };
    parts.extend(wrap(first, room, rest));
    for line in text.iter().skip(1) {
        parts.extend(wrap(line, rest, rest));
    }
    if parts.len() > LINES_MAX {
        let more = parts.len() - LINES_MAX;
        parts.truncate(LINES_MAX);
        parts.push(format!("[{more} more lines: baran topic tail]"));
    }
    let style = Style::new().fg(colour(author)).bold();
    let mut lines = Vec::with_capacity(parts.len() + 1);
    for (n, part) in parts.into_iter().enumerate() {
        lines.push(match n {
            0 => Line::from(vec![
                format!("{time} ").dim(),
                Span::styled(who.clone(), style),
                " ".into(),
                part.into(),
            ]),
            _ => Line::from(vec![" ".repeat(INDENT).into(), part.into()]),
        });
    }
    if let Some(tick) = tick {
        let fits = lines.last().is_some_and(|last| last.width() + 1 + tick.width() <= columns);
        if !fits {
            lines.push(Line::from(" ".repeat(INDENT - 1)));
        }
        if let Some(last) = lines.last_mut() {
            last.push_span(format!(" {tick}").dim());
        }
    }
    lines
}

/// A line with a word in it.
fn ruled(word: &str, columns: usize, style: Style) -> Line<'static> {
    let word = format!("── {word} ");
    let rule = "─".repeat(columns.saturating_sub(word.width()));
    Line::styled(format!("{word}{rule}"), style)
}

/// The colour of an author: of its whole id, so it tells those apart whose ids begin alike.
fn colour(id: &str) -> Color {
    let hash = id
        .bytes()
        .fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
    COLOURS[hash % COLOURS.len()]
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
