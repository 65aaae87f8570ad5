use super::*;

pub(crate) const ME: &str = "meeeqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena";
pub(crate) const ANA: &str = "anaaqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena";

pub(crate) fn topic() -> TopicView {
    TopicView {
        id: "dg2j73glpsetgq5p6awawxp5azp2o4odekdfngg2exziu7cdt2cq".to_owned(),
        name: Some("birds".to_owned()),
        title: None,
        may: "write".to_owned(),
        members: 2,
        online: 2,
        entries: 0,
    }
}

pub(crate) fn member(id: &str, name: Option<&str>, has_ours: u64) -> MemberView {
    MemberView {
        id: id.to_owned(),
        name: name.map(str::to_owned),
        me: id == ME,
        may: Some("write".to_owned()),
        online: true,
        away: false,
        neighbor: true,
        removed: false,
        forked: false,
        seq: 1,
        has_ours,
    }
}

pub(crate) fn said(author: &str, seq: u64, text: &str) -> TopicAnswer {
    said_at(author, seq, text, seq * 1_000, false)
}

fn said_at(author: &str, seq: u64, text: &str, order: u64, is_new: bool) -> TopicAnswer {
    let (author, text) = (author.to_owned(), Some(text.to_owned()));
    let said = Said { author, name: None, seq, time: order, text, data: None, kind: 0 };
    TopicAnswer::Chat(ChatAnswer::Said { said, order, is_new })
}

pub(crate) fn members(has_ours: u64) -> TopicAnswer {
    let all = vec![member(ME, Some("me"), 0), member(ANA, Some("ana"), has_ours)];
    TopicAnswer::Chat(ChatAnswer::Members(all))
}

/// A chat of two of which all is known.
pub(crate) fn chat() -> Chat {
    let mut chat = Chat::new(topic());
    chat.page = (20, 56);
    chat.answer(members(0));
    chat.answer(TopicAnswer::Chat(ChatAnswer::Ready));
    chat
}

pub(crate) fn press(chat: &mut Chat, code: KeyCode) -> Option<Action> {
    chat.event(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

pub(crate) fn enter(chat: &mut Chat, text: &str) -> Option<Action> {
    chat.event(&Event::Paste(text.to_owned()));
    press(chat, KeyCode::Enter)
}

fn texts(chat: &Chat) -> Vec<&str> {
    fn text(item: &Item) -> &str {
        match &item.what {
            What::Said(said) => said.text.as_deref().unwrap_or("-"),
            What::Notice(notice) => notice,
        }
    }
    chat.items.iter().map(text).collect()
}

fn say(id: u64, text: &str) -> Option<Action> {
    Some(Action::Ask(ChatAsk::Say { id, text: text.to_owned() }))
}

#[test]
fn what_is_typed_is_pending_until_it_comes_back() {
    // The word that it is written may come before or after the entry itself.
    for is_first in [true, false] {
        let mut chat = chat();
        assert_eq!(enter(&mut chat, "hello"), say(0, "hello"));
        assert_eq!((chat.pending.len(), chat.pending[0].seq), (1, None));
        let written = TopicAnswer::Chat(ChatAnswer::Written { id: 0, seq: 7 });
        if is_first {
            chat.answer(written.clone());
            assert_eq!(chat.pending[0].seq, Some(7));
            chat.answer(said(ME, 7, "hello"));
        } else {
            chat.answer(said(ME, 7, "hello"));
            chat.answer(written);
        }
        assert!(chat.pending.is_empty());
        assert_eq!(texts(&chat), ["hello"]);
    }
}

#[test]
fn what_is_refused_can_be_said_again() {
    let mut chat = chat();
    enter(&mut chat, "hello");
    let why = "this node was removed\x1b[2J".to_owned();
    chat.answer(TopicAnswer::Chat(ChatAnswer::Refused { id: Some(0), why }));
    assert!(chat.pending.is_empty());
    assert_eq!(texts(&chat), ["this was not done: this node was removed\\u{1b}[2J"]);
    assert_eq!(press(&mut chat, KeyCode::Enter), say(1, "hello"));
}

#[test]
fn commands_are_known_and_others_are_no_messages() {
    let mut chat = chat();
    assert_eq!(enter(&mut chat, "/me waves"), say(0, "/me waves"));
    assert_eq!(enter(&mut chat, "//shrug"), say(1, "/shrug"));
    assert_eq!(enter(&mut chat, "/invite"), Some(Action::Ask(ChatAsk::Invite)));
    let name = ChatAsk::Name("bob".to_owned());
    assert_eq!(enter(&mut chat, "/name  bob "), Some(Action::Ask(name)));
    for nothing in ["", "   ", "/who", "/help", "/dance x", "/name", "/me"] {
        assert_eq!(enter(&mut chat, nothing), None, "{nothing:?}");
    }
    let texts = texts(&chat).join("\n");
    assert!(texts.contains("● ana·anaa, may write: anaaq"), "{texts}");
    assert!(texts.contains("there is no /dance"), "{texts}");
    assert_eq!(enter(&mut chat, "/quit"), Some(Action::Quit));
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(chat.event(&Event::Key(control_c)), Some(Action::Quit));
}

#[test]
fn what_came_since_last_time_and_while_scrolled_up_is_marked_until_one_answers() {
    let mut chat = Chat::new(topic());
    chat.page = (3, 40);
    chat.answer(members(0));
    for (seq, is_new) in [(1, false), (2, true), (3, true)] {
        chat.answer(said_at(ANA, seq, "x", seq * 1_000, is_new));
    }
    chat.answer(TopicAnswer::Chat(ChatAnswer::Ready));
    assert_eq!(chat.new_from, Some(2_000));
    enter(&mut chat, "hi");
    assert_eq!(chat.new_from, None);
    chat.answer(said(ANA, 4, "x"));
    assert_eq!((chat.new_from, chat.unseen), (None, 0));
    press(&mut chat, KeyCode::PageUp);
    assert_eq!(chat.scroll, 1);
    chat.answer(said(ANA, 5, "x"));
    assert_eq!((chat.new_from, chat.unseen, chat.scroll), (Some(5_000), 1, 3));
    press(&mut chat, KeyCode::End);
    assert_eq!((chat.new_from, chat.unseen, chat.scroll), (Some(5_000), 0, 0));
}

#[test]
fn what_comes_late_stands_where_it_was_said() {
    let mut chat = chat();
    for (seq, order) in [(1, 1_000), (2, 3_000), (3, 2_000)] {
        chat.answer(said_at(ANA, seq, &seq.to_string(), order, false));
    }
    assert_eq!(texts(&chat), ["1", "3", "2"]);
}

#[test]
fn nobody_passes_for_another() {
    let mut chat = chat();
    let like_ana = ANA.replace("anaaqamc", "anaaqamd");
    let all = vec![
        member(ME, None, 0),
        member(ANA, Some("ana"), 0),
        member(&like_ana, Some("ana"), 0),
        member("zzzz", Some("ana·anaaqamc\n"), 0),
    ];
    chat.answer(TopicAnswer::Chat(ChatAnswer::Members(all)));
    assert_eq!(chat.who(ANA, None), "ana·anaaqamc");
    assert_eq!(chat.who(&like_ana, None), "ana·anaaqamd");
    assert_eq!(chat.who("zzzz", None), "ana.anaaqamc\\u{a}·zzzz");
    assert_eq!(chat.who(ME, None), &ME[..8]);
}

#[test]
fn ticks_count_those_who_have_it() {
    let mut chat = chat();
    assert_eq!(chat.reached(1), 0);
    chat.answer(members(3));
    assert_eq!((chat.reached(3), chat.reached(4)), (1, 0));
}

#[test]
fn a_path_alone_is_no_message_yet() {
    let file = tempfile::Builder::new().prefix("a b").tempfile().unwrap();
    let path = file.path().to_str().unwrap();
    let escaped = path.replace(' ', "\\ ");
    for text in [path, &format!("'{path}' "), &escaped, &format!("file://{path}\n")] {
        let mut chat = chat();
        chat.event(&Event::Paste(text.to_owned()));
        assert!(chat.input.is_empty(), "{text}");
        assert!(texts(&chat)[0].starts_with("files cannot be sent yet"), "{text}");
    }
    for text in ["/no/such/file", "see /tmp", "hello"] {
        let mut chat = chat();
        chat.event(&Event::Paste(text.to_owned()));
        assert!(!chat.input.is_empty() && chat.items.is_empty(), "{text}");
    }
}

#[test]
fn what_is_kept_is_bounded() {
    let mut chat = chat();
    for seq in 1..=2 * ITEMS_MAX as u64 {
        chat.answer(said(ANA, seq, "x"));
    }
    assert_eq!(chat.items.len(), ITEMS_MAX);
    let asked = (0..2 * PENDING_MAX).filter(|_| enter(&mut chat, "x").is_some()).count();
    assert_eq!((asked, chat.pending.len()), (PENDING_MAX, PENDING_MAX));
}

#[test]
fn what_is_no_message_is_not_shown() {
    let mut chat = chat();
    let TopicAnswer::Chat(ChatAnswer::Said { said, order, is_new }) = said(ANA, 1, "x") else {
        panic!("it is one")
    };
    let said = Said { kind: 16, ..said };
    chat.answer(TopicAnswer::Chat(ChatAnswer::Said { said, order, is_new }));
    assert!(chat.items.is_empty());
}
