// Sends what a form on this page asks for, and shows the answer as it comes.
"use strict";

const MOST = 256 * 1024;

async function ask(form) {
  const output = form.querySelector("pre");
  let path = form.dataset.path;
  const query = new URLSearchParams();
  for (const field of form.querySelectorAll("input[name]")) {
    if (field.dataset.in === "path") {
      const text = field.value.split("/").map(encodeURIComponent).join("/");
      path = path.replace(`{${field.name}}`, text);
    } else if (field.value !== "") {
      query.set(field.name, field.value);
    }
  }
  const url = query.size > 0 ? `${path}?${query}` : path;
  const aborter = new AbortController();
  form.aborter?.abort();
  form.aborter = aborter;
  output.hidden = false;
  output.textContent = `GET ${url}\n`;
  try {
    const answer = await fetch(url, { signal: aborter.signal, redirect: "manual", cache: "no-store" });
    if (answer.type === "opaqueredirect") {
      output.textContent += "\na redirect to an owner: open it with curl -L";
      return;
    }
    const head = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    output.textContent += `\n${answer.status} ${answer.statusText}\n${head}\n\n`;
    await show(answer, output, aborter);
  } catch (error) {
    if (error.name !== "AbortError") output.textContent += `\n${error}`;
  }
}

async function show(answer, output, aborter) {
  const isJson = /json/.test(answer.headers.get("content-type") ?? "");
  const decoder = new TextDecoder();
  const reader = answer.body.getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const piece = decoder.decode(value, { stream: true });
    text += piece;
    if (!isJson) output.append(piece);
    if (text.length > MOST) {
      aborter.abort();
      output.append("\n… and more");
      return;
    }
  }
  if (!isJson) return;
  try {
    output.append(JSON.stringify(JSON.parse(text), null, 2));
  } catch {
    output.append(text);
  }
}

for (const form of document.querySelectorAll("form[data-path]")) {
  form.querySelector("button").disabled = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(form);
  });
}
