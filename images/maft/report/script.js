"use strict";
(() => {
  const PAGE = 20;
  const SHORT = 400;
  const FILTERS = {
    "all": ["All", ""],
    "corrected": ["Corrected by the others", "An agent was wrong at first and right in the end."],
    "talkedOut": ["Talked out of a right answer", "An agent was right at first and wrong in the end."],
    "noConsensus": ["No consensus", "The last vote was tied, or no answer could be read."],
  };
  const byId = (id) => document.getElementById(id);
  const stages = JSON.parse(byId("stages").textContent);
  const state = { stage: stages.findIndex((s) => s.chosen), filter: "all", text: "", shown: 0, matches: [] };

  // Everything goes through here: strings become text nodes, never markup.
  const element = (tag, cls, ...children) => {
    const made = document.createElement(tag);
    if (cls) made.className = cls;
    made.append(...children.filter((c) => c !== null && c !== ""));
    return made;
  };
  const cards = (stage) => {
    if (!stage.cards) stage.cards = JSON.parse(byId(`cards-${stages.indexOf(stage)}`).textContent);
    return stage.cards;
  };
  const words = (card) => {
    const turns = card.agents.flat();
    card.words ??= [card.question, card.answer, ...turns.map((t) => `${t.text}\n${t.summary ?? ""}`)].join("\n").toLowerCase();
    return card.words;
  };
  const count = (n) => n.toLocaleString("en");

  const verdict = (right, none) => {
    if (none) return element("span", "verdict wrong", "– no answer found, counts as wrong");
    return element("span", `verdict ${right ? "right" : "wrong"}`, right ? "✓ right" : "✗ wrong");
  };
  const modelName = (name) => (name === "base" ? "base model" : name);
  const answerText = (text) => {
    const box = element("div", "model-text", text || "(said nothing)");
    if (text.length > SHORT) { box.tabIndex = 0; box.setAttribute("role", "group"); box.setAttribute("aria-label", "Answer, can be scrolled"); }
    return box;
  };
  const ending = (end) => {
    if (end === "stop") return null;
    if (end === "length") return element("p", "note", "Cut off at the token limit.");
    if (end === "context") return element("p", "note", "No room was left in the context.");
    return element("p", "note", `Cut off: ${end}.`);
  };
  const folded = (cls, label, text) => element("details", cls, element("summary", "", label), element("div", "model-text", text));
  const thought = (turn) => (turn.thought ? folded("thought", `Thought, ${count(turn.thought.length)} characters`, turn.thought) : null);
  const clipped = (turn) => (turn.clipped ?? []).map((c) =>
    folded("heard", `${c.texts === 1 ? "1 text" : `${c.texts} texts`} of the others did not fit: the prompt with what was clipped`, c.prompt));
  const heard = (turn) => {
    if (turn.hinted) return element("p", "note", "Was asked again with the answer as a hint.");
    if (turn.summary === null) return element("p", "note", "Saw the other answers themselves.");
    const details = element("details", "heard", element("summary", "", "Summary it saw"), element("div", "model-text", turn.summary));
    details.open = turn.summary.length <= SHORT;
    return details;
  };
  const round = (turn, m) => element("div", `round ${turn.right ? "is-right" : "is-wrong"}`,
    element("h5", "", `Round ${m + 1}`, element("code", "model", modelName(turn.model))),
    m ? heard(turn) : null,
    ...clipped(turn),
    thought(turn),
    answerText(turn.text),
    ending(turn.end),
    element("p", "parsed", ...(turn.parsed === null ? [] : [element("span", "label", "Read as"), element("b", "", turn.parsed), " "]), verdict(turn.right, turn.parsed === null),
      turn.parsed !== null && turn.agrees ? element("span", "note", "as the majority") : null));
  const path = (turns) => (turns.length > 1 ? [turns[0], turns[turns.length - 1]] : turns).map((t) => (t.right ? "right" : "wrong")).join(" → ");
  const agent = (turns, n) => {
    const column = element("section", "agent", element("h4", "", `Agent ${n}`, element("span", "path", path(turns))), ...turns.map(round));
    column.style.gridColumn = n + 1;
    column.style.gridRow = `1 / span ${turns.length + 1}`;
    return column;
  };
  const majority = (card) => {
    const vote = card.vote;
    if (vote.answer === null) return [verdict(false, true)];
    const behind = `${vote.votes} of ${card.agents.length} agents${vote.tied ? ", a tie decided by the seed" : ""}`;
    return [element("b", "", vote.answer), " ", verdict(vote.right, false), element("span", "note", behind)];
  };
  const tag = (name) => element("span", "tag", FILTERS[name][0]);
  const article = (card) => {
    const columns = element("div", "agents", ...card.agents.map(agent));
    columns.style.setProperty("--agents", card.agents.length);
    columns.style.setProperty("--rows", Math.max(...card.agents.map((a) => a.length)) + 1);
    const made = element("article", "card",
      element("header", "", element("h3", "", `Question ${card.number}`), ...card.tags.map(tag)),
      element("p", "question", card.question),
      card.compared ? element("p", "note", `Programs count by what they give for ${card.compared}.`) : null,
      element("dl", "answers", element("div", "", element("dt", "", "Reference answer"), element("dd", "", element("b", "", card.answer))),
        element("div", "", element("dt", "", "Majority of the last round"), element("dd", "", ...majority(card)))),
      columns);
    made.tabIndex = -1;
    if (card.agents.length > 3) { columns.tabIndex = 0; columns.setAttribute("role", "group"); columns.setAttribute("aria-label", "Agents, side by side"); }
    return made;
  };

  const more = () => {
    const next = state.matches.slice(state.shown, state.shown + PAGE).map(article);
    state.shown += next.length;
    byId("cards").append(...next);
    byId("more").hidden = state.shown >= state.matches.length;
    byId("more").textContent = `Show ${Math.min(PAGE, state.matches.length - state.shown)} more`;
    byId("status").textContent = state.matches.length
      ? `${count(state.shown)} of ${count(state.matches.length)} debates shown. ${FILTERS[state.filter][1]}`.trim()
      : "No debate of this stage is like that.";
    return next[0];
  };
  const find = () => {
    const wanted = state.text.toLowerCase();
    const fits = (card) => (state.filter === "all" || card.tags.includes(state.filter)) && (!wanted || words(card).includes(wanted));
    state.matches = cards(stages[state.stage]).filter(fits);
    state.shown = 0;
    byId("cards").replaceChildren();
    more();
  };
  const chip = (name) => {
    const stage = stages[state.stage];
    const here = cards(stage).filter((card) => name === "all" || card.tags.includes(name)).length;
    const all = name === "all" ? stage.total : stage.counts[name];
    const made = element("button", "chip", FILTERS[name][0], element("span", "count", here < all ? `${count(here)} of ${count(all)}` : count(all)));
    made.type = "button";
    made.title = FILTERS[name][1];
    made.dataset.filter = name;
    made.setAttribute("aria-pressed", String(name === state.filter));
    made.addEventListener("click", () => { state.filter = name; press(); find(); });
    return made;
  };
  const press = () => {
    for (const made of byId("chips").children) made.setAttribute("aria-pressed", String(made.dataset.filter === state.filter));
  };
  const enter = (index) => {
    state.stage = index;
    const stage = stages[index];
    const left = stage.total - cards(stage).length;
    byId("chips").replaceChildren(...Object.keys(FILTERS).map(chip));
    byId("left").hidden = !left;
    byId("left").textContent = `${count(left)} of these ${count(stage.total)} debates are left out to keep this page small, `
      + `those in which nothing changed first. All are in the store below ${stage.prefix}`;
    find();
  };

  const select = byId("stage");
  select.append(...stages.map((stage, i) => new Option(stage.label, i, stage.chosen, stage.chosen)));
  select.addEventListener("change", () => enter(Number(select.value)));
  byId("more").addEventListener("click", () => more()?.focus({ preventScroll: true }));
  let pause = 0;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(pause);
    pause = setTimeout(() => { state.text = event.target.value.trim(); find(); }, 150);
  });
  byId("browser").hidden = false;
  enter(state.stage);
})();
