const lines = ["solid", "dashed", "dotted", "double", "wavy"], marks = [];
for (const [name, heading] of [["question", "Question"], ["answer", "Answer"]]) {
  make("h2", heading, parent);
  const box = make("p", "", parent); box.className = "words " + name;
  for (const [text, facts, ends] of shown[name]) {
    if (!facts.length) { box.append(text); continue; }
    const fact = facts[facts.length - 1], colour = shown.colours[fact], mark = make("mark", text, box);
    mark.className = `c${colour} ${lines[colour % lines.length]}`; mark.tabIndex = 0; mark.title = "fact " + fact;
    mark.dataset.facts = " " + facts.join(" ") + " "; mark.dataset.fact = fact;
    for (const end of ends) make("sup", end, mark);
    marks.push(mark);
  }
}
const link = (fact, on) => marks.forEach(one => one.classList.toggle("partner", on && one.dataset.facts.includes(` ${fact} `)));
for (const mark of marks) {
  mark.onmouseenter = mark.onfocus = () => link(mark.dataset.fact, true);
  mark.onmouseleave = mark.onblur = () => link(mark.dataset.fact, false);
}
