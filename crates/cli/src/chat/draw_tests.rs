use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyCode;

use super::super::state::tests::{ANA, ME, chat, enter, member, members, press, said};
use super::*;
use crate::daemon::protocol::{ChatAnswer, TopicAnswer};

/// The screen's lines.
fn screen(chat: &mut Chat, columns: u16, rows: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, chat)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let row = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..rows).map(|y| row(y).trim_end().to_owned()).collect()
}

fn holds(screen: &[String], text: &str) -> bool {
    screen.iter().any(|line| line.contains(text))
}

#[test]
fn a_screen_of_the_usual_size_has_it_all() {
    let mut chat = chat();
    chat.answer(said(ANA, 1, "hello\nthere"));
    chat.answer(said(ME, 2, "hi"));
    enter(&mut chat, "how are you?");
    let screen = screen(&mut chat, 80, 24);
    assert!(screen[0].starts_with(" birds  public, 2 of 2 there"), "{screen:#?}");
    assert!(screen[1].contains("│ ● ana·anaa"), "{screen:#?}");
    assert!(screen[2].contains("│ ● me·meee (you)"), "{screen:#?}");
    assert!(holds(&screen, " ana·anaa hello"), "{screen:#?}");
    assert!(holds(&screen, "      there"), "{screen:#?}");
    assert!(holds(&screen, " me·meee hi ✓"), "{screen:#?}");
    assert!(screen[21].starts_with("      me·meee how are you? …"), "{screen:#?}");
    assert!(screen[22].starts_with("────"), "{screen:#?}");
    assert!(screen[23].starts_with("> "), "{screen:#?}");
}

#[test]
fn ticks_show_how_far_a_message_came() {
    let mut chat = chat();
    chat.answer(said(ME, 5, "hi"));
    assert!(holds(&screen(&mut chat, 80, 24), "hi ✓ "), "on disk");
    chat.answer(members(5));
    assert!(holds(&screen(&mut chat, 80, 24), "hi ✓✓ 1"), "at one member");
    enter(&mut chat, "more");
    assert!(holds(&screen(&mut chat, 80, 24), "more …"), "being written");
    chat.answer(TopicAnswer::Chat(ChatAnswer::Written { id: 0, seq: 6 }));
    assert!(holds(&screen(&mut chat, 80, 24), "more ✓"), "written");
}

#[test]
fn nothing_of_others_reaches_the_terminal_unescaped() {
    let hostile = "\x1b[2J\u{9b}1m\u{202e}evil\u{200b}\r\n\ttab\u{2028}";
    let mut chat = chat();
    chat.topic.name = Some(format!("{hostile}topic"));
    let all = vec![member(ME, None, 0), member(ANA, Some("a\x1b]0;t\x07\u{202e}"), 0)];
    chat.answer(TopicAnswer::Chat(ChatAnswer::Members(all)));
    chat.answer(said(ANA, 1, hostile));
    let why = hostile.to_owned();
    chat.answer(TopicAnswer::Chat(ChatAnswer::Refused { id: None, why }));
    chat.answer(TopicAnswer::JoinedPublic(hostile.to_owned()));
    enter(&mut chat, hostile);
    enter(&mut chat, "/who");
    enter(&mut chat, &format!("/{hostile}"));
    chat.input.insert(hostile);
    for columns in [20, 80, 200] {
        let text = screen(&mut chat, columns, 60).concat();
        let is_bad = |c: char| c.is_control() || "\u{202e}\u{200b}\u{2028}\u{9b}".contains(c);
        assert!(!text.chars().any(is_bad), "{text:?}");
    }
    assert!(holds(&screen(&mut chat, 200, 60), "\\u{1b}[2J\\u{9b}1m\\u{202e}evil\\u{200b}"));
}

#[test]
fn long_lines_are_broken_and_long_messages_cut() {
    let mut chat = chat();
    chat.answer(said(ANA, 1, &"word ".repeat(30)));
    chat.answer(said(ANA, 2, &"漢".repeat(100)));
    let text = screen(&mut chat, 80, 24);
    assert_eq!(text.concat().matches("word").count(), 30, "{text:#?}");
    assert_eq!(text.concat().matches('漢').count(), 100, "{text:#?}");
    let history = text.iter().filter(|line| line.contains("word") || line.contains('漢'));
    assert!(history.clone().count() > 6 && history.count() < 10, "{text:#?}");
    chat.answer(said(ANA, 3, &"x\n".repeat(10_000)));
    assert!(holds(&screen(&mut chat, 80, 24), "more lines: baran topic tail]"));
}

#[test]
fn every_size_is_borne() {
    let mut chat = chat();
    chat.answer(said(ANA, 1, "hello 漢字 there\nand a second line that is long"));
    chat.answer(said(ME, 2, "hi"));
    chat.new_from = Some(0);
    enter(&mut chat, "/help");
    chat.input.insert("typing 漢字");
    for columns in (1..=30).chain([63, 64, 80, 300]) {
        for rows in (1..=8).chain([24, 100]) {
            for scroll in [0, 3, usize::MAX / 2] {
                chat.scroll = scroll;
                screen(&mut chat, columns, rows);
            }
        }
    }
    assert!(!holds(&screen(&mut chat, 60, 24), "│"), "no members where there is no room");
    press(&mut chat, KeyCode::Tab);
    assert!(!holds(&screen(&mut chat, 80, 24), "│"), "no members if they are not wanted");
}

#[test]
fn scrolling_reaches_the_first_line_and_stays_at_what_is_read() {
    let mut chat = chat();
    for seq in 1..=100 {
        chat.answer(said(ANA, seq, &format!("line {seq}.")));
    }
    assert!(holds(&screen(&mut chat, 80, 24), "line 100."));
    press(&mut chat, KeyCode::Home);
    let top = screen(&mut chat, 80, 24);
    assert!(top[1].starts_with("── 1970-01-01"), "{top:#?}");
    assert!(top[2].contains("line 1."), "{top:#?}");
    press(&mut chat, KeyCode::PageDown);
    let before = screen(&mut chat, 80, 24);
    chat.answer(said(ANA, 101, "line 101."));
    let after = screen(&mut chat, 80, 24);
    assert_eq!(before[..22], after[..22]);
    assert!(after[22].contains("1 new below: End"), "{after:#?}");
    press(&mut chat, KeyCode::End);
    let end = screen(&mut chat, 80, 24);
    let new = end.iter().position(|line| line.starts_with("── new ─")).unwrap();
    assert!(end[new + 1].contains("line 101."), "{end:#?}");
}

#[test]
fn a_crowd_of_members_gives_way_but_keeps_its_ids() {
    let mut chat = chat();
    let name = "somebody with a very long name";
    let all = (10..99).map(|n| member(&format!("{n}abqamc"), Some(name), 0)).collect();
    chat.answer(TopicAnswer::Chat(ChatAnswer::Members(all)));
    let screen = screen(&mut chat, 80, 24);
    assert!(screen[1].contains("●") && screen[1].ends_with("·10ab"), "{screen:#?}");
    assert!(screen[21].ends_with("and 69 more"), "{screen:#?}");
}

#[test]
fn what_somebody_does_is_told_so() {
    let mut chat = chat();
    chat.answer(said(ANA, 1, "/me waves"));
    assert!(holds(&screen(&mut chat, 80, 24), " * ana·anaa waves"));
}
