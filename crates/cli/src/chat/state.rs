//! What a chat knows, and what becomes of keys and answers.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::draw;
use super::input::Input;
use crate::args::member_name;
use crate::daemon::protocol::{ChatAnswer, ChatAsk, TopicAnswer};
use crate::escape;
use crate::view::topic::who;
use crate::view::{MemberView, Said, TopicView};

/// Items of the history that are kept, the last ones.
const ITEMS_MAX: usize = 2_000;
/// Messages of ours that are not written yet.
const PENDING_MAX: usize = 64;
/// Members that `/who` tells.
const WHO_MAX: usize = 50;
/// Least characters of an id behind a name.
const TAG_MIN: usize = 4;

const HELP: &str = "\
/me TEXT says what you do, /who tells who takes part, /name NAME is what others call you, /invite \
makes an invite, /quit ends; //text says /text
PageUp, PageDown, Home and End scroll; Up and Down bring back what you typed; Ctrl-J is a new \
line; Tab shows or hides the members
… is being written, ✓ is on this node's disk, ✓✓ 3 has reached 3 members as far as they have \
said so";

/// What is to be done after a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask the node.
    Ask(ChatAsk),
    /// End.
    Quit,
}

/// A chat.
#[derive(Debug)]
pub(super) struct Chat {
    /// In which topic.
    pub(super) topic: TopicView,
    /// What is shown above, in the order of [`Item::order`].
    pub(super) items: Vec<Item>,
    /// What was typed and is not among them yet.
    pub(super) pending: Vec<Pending>,
    /// Who takes part, those first that look.
    pub(super) members: Vec<MemberView>,
    /// Characters of an id that tell all members apart.
    pub(super) tag_len: usize,
    /// What is being typed.
    pub(super) input: Input,
    /// By how many lines the end of the history is below the screen.
    pub(super) scroll: usize,
    /// From which place on the user has not looked.
    pub(super) new_from: Option<u64>,
    /// How many came below the screen.
    pub(super) unseen: usize,
    /// Whether the members are shown, if there is room.
    pub(super) has_side: bool,
    /// Lines and columns of the history on the screen.
    pub(super) page: (usize, usize),
    is_ready: bool,
    next_id: u64,
}

/// Something in the history.
#[derive(Debug)]
pub(super) struct Item {
    /// Its place: about when, in milliseconds since 1970.
    pub(super) order: u64,
    /// What.
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// Somebody said something.
    Said(Said),
    /// This program did, to its user alone. Escaped.
    Notice(String),
}

/// What the user typed.
#[derive(Debug)]
pub(super) struct Pending {
    id: u64,
    /// What.
    pub(super) text: String,
    /// Its number, once it is on disk.
    pub(super) seq: Option<u64>,
}

impl Chat {
    /// A chat in a topic, of which nothing is known yet.
    pub(super) fn new(topic: TopicView) -> Self {
        Self {
            topic,
            items: Vec::new(),
            pending: Vec::new(),
            members: Vec::new(),
            tag_len: TAG_MIN,
            input: Input::default(),
            scroll: 0,
            new_from: None,
            unseen: 0,
            has_side: true,
            page: (0, 0),
            is_ready: false,
            next_id: 0,
        }
    }

    /// Tells the user something. Text of others must be escaped.
    pub(super) fn notice(&mut self, text: String) {
        self.insert(Item { order: unix_ms(), what: What::Notice(text) });
    }

    /// Takes what the node says.
    pub(super) fn answer(&mut self, answer: TopicAnswer) {
        match answer {
            TopicAnswer::Chat(ChatAnswer::Said { said, order, is_new }) => {
                self.said(said, order, is_new);
            }
            TopicAnswer::Chat(ChatAnswer::Ready) => self.is_ready = true,
            TopicAnswer::Chat(ChatAnswer::Members(members)) => self.take_members(members),
            TopicAnswer::Chat(ChatAnswer::Written { id, seq }) => {
                let is_known = self.is_known(seq);
                if is_known {
                    self.pending.retain(|pending| pending.id != id);
                }
                for pending in self.pending.iter_mut().filter(|pending| pending.id == id) {
                    pending.seq = Some(seq);
                }
            }
            TopicAnswer::Chat(ChatAnswer::Refused { id, why }) => self.refused(id, &why),
            TopicAnswer::Invite(invite) => {
                // Beside the members it could not be copied.
                self.has_side = false;
                let text = "whoever has this can write here; Tab shows the members again";
                self.notice(format!("{text}\n{}", escape::name(&invite.invite)));
            }
            TopicAnswer::JoinedPublic(name) => {
                let name = escape::name(&name);
                self.notice(format!("joined the public topic {name}: everybody may read it"));
            }
            TopicAnswer::Joined(topic) => self.topic = topic,
            // Not said to chats.
            TopicAnswer::Created(_)
            | TopicAnswer::Member(_)
            | TopicAnswer::Removed(_)
            | TopicAnswer::Left(_)
            | TopicAnswer::Sent(_)
            | TopicAnswer::Said(_)
            | TopicAnswer::Status(_) => {}
        }
    }

    fn said(&mut self, said: Said, order: u64, is_new: bool) {
        if said.kind != baran::KIND_MESSAGE {
            return;
        }
        let is_ours = self.is_me(&said.author);
        if is_ours {
            self.pending.retain(|pending| pending.seq != Some(said.seq));
        }
        let is_away = self.is_ready && self.scroll > 0;
        if !is_ours && is_away && self.new_from.is_none() {
            // The line that marks it.
            self.scroll += 1;
        }
        if !is_ours && (is_new && !self.is_ready || is_away) {
            self.new_from = Some(self.new_from.map_or(order, |from| from.min(order)));
        }
        if !is_ours && is_away {
            self.unseen += 1;
        }
        self.insert(Item { order, what: What::Said(said) });
    }

    fn insert(&mut self, item: Item) {
        if self.scroll > 0 {
            // What the user reads stays where it is.
            self.scroll += draw::height(self, &item);
        }
        let at = self.items.partition_point(|known| known.order <= item.order);
        self.items.insert(at, item);
        if self.items.len() > ITEMS_MAX {
            self.items.remove(0);
        }
    }

    fn is_known(&self, seq: u64) -> bool {
        self.items.iter().rev().any(|item| match &item.what {
            What::Said(said) => said.seq == seq && self.is_me(&said.author),
            What::Notice(_) => false,
        })
    }

    fn refused(&mut self, id: Option<u64>, why: &str) {
        let refused = self.pending.iter().position(|pending| Some(pending.id) == id);
        if let Some(refused) = refused {
            let text = self.pending.remove(refused).text;
            if self.input.is_empty() {
                self.input.insert(&text);
            }
        }
        self.notice(format!("this was not done: {}", escape::escape(why)));
    }

    fn take_members(&mut self, mut members: Vec<MemberView>) {
        members.retain(|member| !member.removed);
        members.sort_by_cached_key(|member| {
            (!looks(member), member.name.is_none(), member.name.clone(), member.id.clone())
        });
        let mut ids: Vec<_> = members.iter().map(|member| member.id.as_str()).collect();
        ids.sort_unstable();
        let common = |pair: &[&str]| {
            pair[0].bytes().zip(pair[1].bytes()).take_while(|(a, b)| a == b).count()
        };
        let longest = ids.windows(2).map(common).max().unwrap_or(0);
        self.tag_len = TAG_MIN.max(longest + 1);
        self.members = members;
    }

    /// How somebody is shown, and the name that it said once if it says none at this moment.
    pub(super) fn who(&self, id: &str, said: Option<&str>) -> String {
        let member = self.members.iter().find(|member| member.id == id);
        let name = member.and_then(|member| member.name.as_deref()).or(said);
        who(name, id, self.tag_len)
    }

    /// Who we are, once that is known.
    pub(super) fn me(&self) -> Option<&str> {
        self.members.iter().find(|member| member.me).map(|member| member.id.as_str())
    }

    /// Whether that is our id.
    pub(super) fn is_me(&self, id: &str) -> bool {
        self.me() == Some(id)
    }

    /// How many others have said to have this entry of ours.
    pub(super) fn reached(&self, seq: u64) -> usize {
        let others = self.members.iter().filter(|member| !member.me);
        others.filter(|member| member.has_ours >= seq).count()
    }

    /// Takes what happens at the terminal.
    pub(super) fn event(&mut self, event: &Event) -> Option<Action> {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(*key),
            Event::Paste(text) => {
                self.paste(text);
                None
            }
            // The screen is drawn anew after every event.
            _ => None,
        }
    }

    fn paste(&mut self, text: &str) {
        match path(text) {
            Some(path) if self.input.is_empty() => {
                let path = escape::name(path.trim());
                self.notice(format!("files cannot be sent yet, so {path} was not"));
            }
            _ => self.input.insert(text),
        }
    }

    fn key(&mut self, key: KeyEvent) -> Option<Action> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        let page = self.page.0.saturating_sub(2).max(1);
        match key.code {
            KeyCode::Char('c') if control => return Some(Action::Quit),
            KeyCode::Char('d') if control && self.input.is_empty() => return Some(Action::Quit),
            KeyCode::Char('j') if control => self.input.insert("\n"),
            KeyCode::Enter if alt => self.input.insert("\n"),
            KeyCode::Enter => return self.submit(),
            KeyCode::PageUp => self.scroll_to(self.scroll.saturating_add(page)),
            KeyCode::PageDown => self.scroll_to(self.scroll.saturating_sub(page)),
            // The drawing knows where the beginning is.
            KeyCode::Home => self.scroll_to(usize::MAX / 2),
            KeyCode::End => self.scroll_to(0),
            KeyCode::Esc => self.new_from = None,
            KeyCode::Tab => self.has_side = !self.has_side,
            code => self.edit(code, control, alt),
        }
        None
    }

    fn edit(&mut self, code: KeyCode, control: bool, alt: bool) {
        let by_word = control || alt;
        let input = &mut self.input;
        match code {
            KeyCode::Char('a') if control => input.begin(),
            KeyCode::Char('e') if control => input.end(),
            KeyCode::Char('b') if alt => input.word_left(),
            KeyCode::Char('f') if alt => input.word_right(),
            KeyCode::Char('w') if control => input.erase_word(),
            KeyCode::Char('u') if control => input.erase_to_begin(),
            KeyCode::Char('k') if control => input.erase_to_end(),
            KeyCode::Char('d') if control => input.erase_right(),
            KeyCode::Char('h') if control => input.erase_left(),
            KeyCode::Char(c) if !by_word => input.insert(c.encode_utf8(&mut [0; 4])),
            KeyCode::Left if by_word => input.word_left(),
            KeyCode::Right if by_word => input.word_right(),
            KeyCode::Left => input.left(),
            KeyCode::Right => input.right(),
            KeyCode::Backspace if by_word => input.erase_word(),
            KeyCode::Backspace => input.erase_left(),
            KeyCode::Delete => input.erase_right(),
            KeyCode::Up => input.older(),
            KeyCode::Down => input.newer(),
            _ => {}
        }
    }

    fn scroll_to(&mut self, scroll: usize) {
        self.scroll = scroll;
        if scroll == 0 {
            self.unseen = 0;
        }
    }

    fn submit(&mut self) -> Option<Action> {
        let text = self.input.take();
        let (command, rest) = text.split_once(char::is_whitespace).unwrap_or((&text, ""));
        let rest = rest.trim();
        match command {
            "" if rest.is_empty() => return None,
            "/me" if !rest.is_empty() => return self.say(format!("/me {rest}")),
            "/quit" => return Some(Action::Quit),
            "/invite" => return Some(Action::Ask(ChatAsk::Invite)),
            "/name" => match member_name(rest) {
                Ok(name) => return Some(Action::Ask(ChatAsk::Name(name))),
                Err(why) => self.notice(why),
            },
            "/who" => self.tell_who(),
            "/help" | "/me" => self.notice(HELP.to_owned()),
            _ if text.starts_with("//") => return self.say(text[1..].to_owned()),
            _ if text.starts_with('/') => {
                let command = escape::name(command);
                self.notice(format!("there is no {command}: /help tells what there is"));
            }
            _ => return self.say(text),
        }
        None
    }

    fn say(&mut self, text: String) -> Option<Action> {
        if self.pending.len() >= PENDING_MAX {
            self.input.insert(&text);
            self.notice("too much waits to be written: wait a little".to_owned());
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.pending.push(Pending { id, text: text.clone(), seq: None });
        // Who answers has looked.
        self.new_from = None;
        self.scroll_to(0);
        Some(Action::Ask(ChatAsk::Say { id, text }))
    }

    fn tell_who(&mut self) {
        let line = |member: &MemberView| {
            let presence = if looks(member) { '●' } else { '○' };
            let you = if member.me { " (you)" } else { "" };
            let may = member.may.as_deref().unwrap_or("unknown");
            let name = self.who(&member.id, None);
            format!("{presence} {name}{you}, may {may}: {}", member.id)
        };
        let mut lines: Vec<_> = self.members.iter().take(WHO_MAX).map(line).collect();
        if let Some(more @ 1..) = self.members.len().checked_sub(WHO_MAX) {
            lines.push(format!("and {more} more: baran topic members"));
        }
        self.notice(lines.join("\n"));
    }
}

/// Whether somebody is there and has the chat open, as far as it says.
pub(super) fn looks(member: &MemberView) -> bool {
    member.online && !member.away
}

/// The path of a file that is there, if that is all that a text is: as terminals paste what is
/// dropped on them.
fn path(text: &str) -> Option<&str> {
    let text = text.trim();
    let quoted =
        ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote));
    let bare = quoted.unwrap_or(text);
    let bare = bare.strip_prefix("file://").unwrap_or(bare);
    let is_one = bare.starts_with('/') && !bare.contains('\n');
    let is_there = |path: &str| Path::new(path).exists();
    (is_one && (is_there(bare) || is_there(&bare.replace('\\', "")))).then_some(text)
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "state_tests.rs"]
pub(super) mod tests;
