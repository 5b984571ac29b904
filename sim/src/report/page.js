"use strict";
// Times are microseconds. See collect.rs for what each array holds.
const data = JSON.parse(document.getElementById("data").textContent);
const canvas = document.getElementById("timeline");
const overview = document.getElementById("overview");
const tip = document.getElementById("tip");
const byId = (id) => document.getElementById(id);

const ROLES = ["follower", "trial", "candidate", "leader", "faulted", "learner"];
const KINDS = ["vote asked", "vote answered", "append", "append answered", "beat", "beat answered", "snapshot chunk", "chunk answered", "beats"];
const VOTES = new Set([0, 1]), SNAPSHOTS = new Set([6, 7]), APPENDS = new Set([2, 3]);
const end = Math.max(data.end, 1);
const failedAt = data.check ? data.failedAt : null;

// ---- Indexes -------------------------------------------------------------------------------
const rolesOf = new Map();
for (const [t, host, group, role, term] of data.roles) {
  const key = host * 1000 + group;
  if (!rolesOf.has(key)) rolesOf.set(key, []);
  rolesOf.get(key).push({ t, role, term });
}
const groupsOf = Array.from({ length: data.hosts }, (_, host) =>
  data.groups.filter((group) => rolesOf.has(host * 1000 + group)));
const rows = Math.max(1, ...groupsOf.map((groups) => groups.length));
const messages = data.messages.map(([sent, at, from, to, kind, lost, group, term, text]) =>
  ({ sent, at, from, to, kind, lost, group, term, text })).sort((a, b) => a.sent - b.sent);
const longestTravel = messages.reduce((longest, message) => Math.max(longest, message.at - message.sent), 0);
const important = (message) => VOTES.has(message.kind) || SNAPSHOTS.has(message.kind);
// How many links at each host are cut or clogged, as change points.
const trouble = Array.from({ length: data.hosts }, () => []);
{
  const changes = [];
  data.links.forEach((link) => { changes.push([link[0], 1, link]); changes.push([link[1], -1, link]); });
  changes.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const now = trouble.map(() => [0, 0]);
  for (const [t, by, link] of changes) {
    for (const host of [link[2], link[3]]) {
      now[host][link[4] - 1] += by;
      const list = trouble[host], last = list[list.length - 1];
      if (last && last.t === t) { last.cut = now[host][0]; last.clogged = now[host][1]; }
      else list.push({ t, cut: now[host][0], clogged: now[host][1] });
    }
  }
}
// What n and p go through.
const stops = [
  ...data.marks.map(([t, host, kind, text]) => ({ t, host, kind, text })),
  ...data.roles.map(([t, host, group, role, term]) => ({ t, host, kind: "role", text: roleText(group, role, term) })),
  ...(failedAt === null ? [] : [{ t: failedAt, host: -1, kind: "violation", text: data.message }]),
].sort((a, b) => a.t - b.t);

function roleText(group, role, term) {
  return (data.groups.length > 1 ? `g${group} ` : "") + `${ROLES[role]} in term ${term}`;
}
function seconds(t, digits = 6) { return (t / 1e6).toFixed(digits) + " s"; }
function span(t) { return t >= 1e6 ? (t / 1e6).toFixed(2) + " s" : t >= 1e3 ? (t / 1e3).toFixed(2) + " ms" : Math.round(t) + " µs"; }
function lowerBound(list, t, of) {
  let low = 0, high = list.length;
  while (low < high) { const mid = (low + high) >> 1; if (of(list[mid]) < t) low = mid + 1; else high = mid; }
  return low;
}
function at(list, t) { const i = lowerBound(list, t + 1, (item) => item.t); return i > 0 ? list[i - 1] : null; }

// ---- The view ------------------------------------------------------------------------------
let from = 0, to = end, width = 800, chosen = null, hits = [], queued = false, color = {};
const SHORTEST = 50;
let gutter = 84;
const RULER = 22, PHASES = 18, GROUND = 16;
const laneHeight = () => Math.max(54, 13 * rows + 40);
const laneTop = (host) => RULER + PHASES + GROUND + host * laneHeight();
const barTop = (host) => laneTop(host) + Math.round((laneHeight() - 13 * rows) / 2);
const barEnd = (host) => barTop(host) + 13 * rows;
const clientRow = data.clients > 8 ? 9 : 13;
const clientsTop = () => laneTop(data.hosts) + 20;
const height = () => clientsTop() + data.clients * clientRow + 10;
const x = (t) => gutter + (t - from) / (to - from) * (width - gutter - 8);
const timeAt = (px) => from + (px - gutter) / (width - gutter - 8) * (to - from);

function look(a, b) {
  let length = Math.min(Math.max(b - a, SHORTEST), end * 1.02);
  const middle = (a + b) / 2;
  from = Math.max(0, middle - length / 2);
  to = from + length;
  if (to > end * 1.02) { to = end * 1.02; from = Math.max(0, to - length); }
  draw();
}
function zoom(factor, around = (from + to) / 2) {
  const left = (around - from) * factor, right = (to - around) * factor;
  look(around - left, around + right);
}
function pan(share) { const by = share * (to - from); look(from + by, to + by); }
function goTo(stop) {
  chosen = stop;
  if (stop.t < from + (to - from) * 0.05 || stop.t > to - (to - from) * 0.05) {
    const half = (to - from) / 2;
    look(stop.t - half, stop.t + half);
  }
  byId("detail").textContent = `${seconds(stop.t)}  ${stop.host >= 0 ? `host ${stop.host} ` : ""}${stop.text}`;
  draw();
}
function step(by) {
  const now = chosen ? chosen.t : by > 0 ? from - 1 : to + 1;
  let index = chosen ? stops.indexOf(chosen) : -1;
  if (index >= 0) index += by;
  else index = by > 0 ? lowerBound(stops, now + 1, (stop) => stop.t) : lowerBound(stops, now, (stop) => stop.t) - 1;
  if (stops[index]) goTo(stops[index]);
}
function fit() { look(0, end); }
function failure() {
  if (failedAt === null) return;
  const length = Math.min(end, Math.max(2e6, end / 20));
  look(failedAt - length * 0.85, failedAt + length * 0.15);
  goTo(stops.find((stop) => stop.kind === "violation"));
}

// ---- Drawing -------------------------------------------------------------------------------
function readColors() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["panel", "text", "quiet", "line", "lane", "follower", "candidate", "leader", "faulted", "paused", "learner",
    "message", "vote", "append", "snapshot", "lost", "clogged", "write", "read", "unknown", "bad", "mark", "focus"])
    color[name] = style.getPropertyValue("--" + name).trim();
}
const roleColor = (role) => color[["follower", "candidate", "candidate", "leader", "faulted", "learner"][role]];
function draw() { if (!queued) { queued = true; requestAnimationFrame(() => { queued = false; paint(); }); } }
function context(element, wide, high) {
  const ratio = window.devicePixelRatio || 1;
  if (element.width !== Math.round(wide * ratio) || element.height !== Math.round(high * ratio)) {
    element.width = Math.round(wide * ratio); element.height = Math.round(high * ratio);
    element.style.height = high + "px";
  }
  const ctx = element.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, wide, high);
  return ctx;
}
function paint() {
  width = canvas.clientWidth || 800;
  gutter = width < 560 ? 56 : 84;
  const ctx = context(canvas, width, height());
  hits = [];
  ctx.font = "12px system-ui, sans-serif";
  ctx.textBaseline = "middle";
  paintRuler(ctx); paintPhases(ctx); paintLanes(ctx); paintClients(ctx);
  ctx.save();
  ctx.beginPath(); ctx.rect(gutter, 0, width - gutter, height()); ctx.clip();
  paintMessages(ctx); paintMarks(ctx); paintFailure(ctx); paintChosen(ctx);
  ctx.restore();
  paintOverview();
  byId("window").textContent = `${seconds(from, 3)} – ${seconds(Math.min(to, end), 3)}, ${span(to - from)} shown`;
}
function paintRuler(ctx) {
  const wanted = (to - from) / Math.max(3, (width - gutter) / 110);
  let tick = 10 ** Math.floor(Math.log10(wanted));
  for (const by of [1, 2, 5, 10]) if (tick * by >= wanted) { tick *= by; break; }
  ctx.fillStyle = color.quiet; ctx.strokeStyle = color.line; ctx.lineWidth = 1; ctx.textAlign = "center";
  const digits = Math.max(0, Math.min(6, 6 - Math.floor(Math.log10(tick))));
  for (let t = Math.ceil(from / tick) * tick; t <= to; t += tick) {
    const px = Math.round(x(t)) + 0.5;
    ctx.beginPath(); ctx.moveTo(px, RULER - 4); ctx.lineTo(px, height()); ctx.globalAlpha = 0.55; ctx.stroke(); ctx.globalAlpha = 1;
    if (px > gutter + 8 && px < width - 24) ctx.fillText((t / 1e6).toFixed(digits) + " s", px, RULER / 2);
  }
}
function paintPhases(ctx) {
  ctx.textAlign = "left";
  data.phases.forEach(([t, name], index) => {
    const until = index + 1 < data.phases.length ? data.phases[index + 1][0] : end;
    const left = Math.max(gutter, x(t)), right = Math.min(width, x(until));
    if (right <= left) return;
    ctx.fillStyle = index % 2 ? color.line : color.lane;
    ctx.fillRect(left, RULER, right - left, PHASES - 3);
    ctx.fillStyle = color.quiet;
    if (right - left > 46) clipped(ctx, name, left + 6, RULER + PHASES / 2 - 1, right - left - 10);
    hits.push({ box: [left, RULER, right - left, PHASES - 3], text: () => `${name}: ${seconds(t, 3)} to ${seconds(until, 3)}` });
  });
}
function clipped(ctx, text, left, middle, room) {
  if (ctx.measureText(text).width > room) {
    while (text.length > 1 && ctx.measureText(text + "…").width > room) text = text.slice(0, -1);
    text += "…";
  }
  ctx.fillText(text, left, middle);
}
function paintLanes(ctx) {
  for (let host = 0; host < data.hosts; host += 1) {
    const top = laneTop(host), bar = barTop(host);
    ctx.fillStyle = color.text; ctx.textAlign = "left";
    ctx.fillText((width < 560 ? "h" : "host ") + host, 4, bar + 6.5 * rows);
    ctx.fillStyle = color.lane;
    ctx.fillRect(gutter, bar - 1, width - gutter - 8, 13 * rows + 1);
    const lives = data.states[host];
    lives.forEach(([t, state], index) => {
      const until = index + 1 < lives.length ? lives[index + 1][0] : end;
      if (until < from || t > to || until <= t) return;
      if (state === 0) return paintDown(ctx, host, t, until);
      groupsOf[host].forEach((group, row) => paintRoles(ctx, host, group, row, t, until));
      if (state === 2) paintPaused(ctx, host, t, until);
    });
    paintTrouble(ctx, host, top);
  }
}
function stretch(t, until) {
  const left = Math.max(gutter, x(t)), right = Math.min(width - 8, x(until));
  return [left, Math.max(right - left, 0.7)];
}
function paintDown(ctx, host, t, until) {
  const [left, wide] = stretch(t, until), bar = barTop(host);
  ctx.save(); ctx.beginPath(); ctx.rect(left, bar - 1, wide, 13 * rows + 1); ctx.clip();
  ctx.strokeStyle = color.line; ctx.lineWidth = 2;
  for (let px = Math.floor(left / 8) * 8 - 8 * rows; px < left + wide + 14; px += 8) { ctx.beginPath(); ctx.moveTo(px, bar + 13 * rows); ctx.lineTo(px + 13 * rows, bar); ctx.stroke(); }
  ctx.restore();
  hits.push({ box: [left, bar, wide, 13 * rows], text: () => `host ${host} is down, ${span(until - t)}` });
}
function paintPaused(ctx, host, t, until) {
  const [left, wide] = stretch(t, until), bar = barTop(host);
  ctx.globalAlpha = 0.75; ctx.fillStyle = color.paused; ctx.fillRect(left, bar, wide, 13 * rows - 1); ctx.globalAlpha = 1;
  hits.push({ box: [left, bar, wide, 13 * rows], text: () => `host ${host} stands still for ${span(until - t)}` });
}
function paintRoles(ctx, host, group, row, begin, stop) {
  const list = rolesOf.get(host * 1000 + group) || [], top = barTop(host) + 13 * row;
  let index = Math.max(0, lowerBound(list, Math.max(begin, from) + 1, (item) => item.t) - 1);
  for (; index < list.length && list[index].t < Math.min(stop, to); index += 1) {
    const { t, role, term } = list[index];
    if (t < begin && !(list[index + 1] === undefined || list[index + 1].t > begin)) continue;
    const a = Math.max(t, begin), b = Math.min(index + 1 < list.length ? list[index + 1].t : stop, stop);
    if (b <= a && t < begin) continue;
    const [left, wide] = stretch(a, b);
    ctx.fillStyle = roleColor(role);
    ctx.fillRect(left, top, wide, 12);
    if (wide > 26) {
      ctx.fillStyle = role === 0 ? color.text : color.panel;
      ctx.font = "10.5px system-ui, sans-serif"; ctx.textAlign = "left";
      clipped(ctx, (wide > 90 && role !== 0 ? ROLES[role] + " " : "") + "t" + term, left + 4, top + 6.5, wide - 6);
      ctx.font = "12px system-ui, sans-serif";
    }
    hits.push({ box: [left, top, wide, 12], text: () => `host ${host}: ${roleText(group, role, term)}, ${seconds(a)} to ${seconds(b)}` });
  }
}
function paintTrouble(ctx, host, top) {
  const list = trouble[host];
  for (let index = Math.max(0, lowerBound(list, from, (item) => item.t) - 1); index < list.length && list[index].t < to; index += 1) {
    const { t, cut, clogged } = list[index];
    const until = index + 1 < list.length ? list[index + 1].t : end;
    if (cut + clogged === 0 || until <= t) continue;
    const [left, wide] = stretch(t, until), y = barEnd(host) + 1;
    ctx.globalAlpha = 0.45 + 0.55 * Math.min(1, (cut + clogged) / Math.max(1, 2 * (data.hosts - 1)));
    ctx.fillStyle = cut ? color.lost : color.clogged;
    ctx.fillRect(left, y, wide, 4); ctx.globalAlpha = 1;
    hits.push({ box: [left, y - 1, wide, 7], text: () => linksText(host, (Math.max(t, from) + Math.min(until, to)) / 2) });
  }
}
function linksText(host, t) {
  const now = data.links.filter(([a, b, one, other]) => a <= t && b > t && (one === host || other === host));
  const words = (state, name) => {
    const some = now.filter((link) => link[4] === state).map((link) => `${link[2]}→${link[3]}`);
    return some.length ? `${name}: ${some.join(", ")}` : "";
  };
  return [words(1, "links cut"), words(2, "links clogged")].filter(Boolean).join("\n");
}
function messageColor(message) {
  if (message.lost) return color.lost;
  if (VOTES.has(message.kind)) return color.vote;
  if (SNAPSHOTS.has(message.kind)) return color.snapshot;
  return APPENDS.has(message.kind) ? color.append : color.message;
}
const MESSAGES_DRAWN = 1500;
function paintMessages(ctx) {
  const first = lowerBound(messages, from - longestTravel, (message) => message.sent);
  const last = lowerBound(messages, to, (message) => message.sent);
  const visible = [];
  for (let index = first; index < last; index += 1) if (messages[index].at >= from) visible.push(messages[index]);
  let shown = visible, note = "";
  if (visible.length > MESSAGES_DRAWN) {
    const rest = visible.filter((message) => !important(message));
    const kept = visible.filter(important);
    const room = Math.max(0, Math.floor((MESSAGES_DRAWN - kept.length) / 3));
    const stride = Math.ceil(rest.length / Math.max(1, room));
    shown = kept.concat(room ? rest.filter((_, index) => index % stride === 0) : []);
    note = `${visible.length - shown.length} of ${visible.length} messages in view are not drawn; zoom in to see them.`;
  }
  byId("hidden").textContent = note;
  const faint = shown.length > 400 ? 0.3 : shown.length > 120 ? 0.55 : 0.85;
  for (const message of shown) {
    const down = message.to > message.from;
    const y1 = down ? barEnd(message.from) : barTop(message.from), y2 = down ? barTop(message.to) : barEnd(message.to);
    let x1 = x(message.sent), x2 = x(message.at), yEnd = y2;
    if (message.lost) { yEnd = y1 + (y2 > y1 ? 1 : -1) * Math.min(Math.abs(y2 - y1), 15); x2 = x1 + 3; }
    ctx.strokeStyle = messageColor(message);
    ctx.globalAlpha = important(message) || message.lost ? Math.max(faint, shown.length > 400 ? 0.45 : 0.8) : faint;
    ctx.lineWidth = important(message) && shown.length <= 400 ? 1.6 : 1;
    ctx.beginPath(); ctx.moveTo(x1, y1); ctx.lineTo(x2, yEnd);
    if (message.lost) { ctx.moveTo(x2 - 3, yEnd - 3); ctx.lineTo(x2 + 3, yEnd + 3); ctx.moveTo(x2 + 3, yEnd - 3); ctx.lineTo(x2 - 3, yEnd + 3); }
    ctx.stroke();
    if (shown.length <= 120 && !message.lost) arrow(ctx, x1, y1, x2, yEnd);
    hits.push({ line: [x1, y1, x2, yEnd], text: () => messageText(message) });
  }
  ctx.globalAlpha = 1;
}
function arrow(ctx, x1, y1, x2, y2) {
  const angle = Math.atan2(y2 - y1, x2 - x1);
  ctx.beginPath(); ctx.fillStyle = ctx.strokeStyle;
  ctx.moveTo(x2, y2); ctx.lineTo(x2 - 6 * Math.cos(angle - 0.4), y2 - 6 * Math.sin(angle - 0.4)); ctx.lineTo(x2 - 6 * Math.cos(angle + 0.4), y2 - 6 * Math.sin(angle + 0.4));
  ctx.fill();
}
function messageText(message) {
  const travel = message.lost ? "lost" : `travels ${span(message.at - message.sent)}`;
  const about = message.group ? `${data.groups.length > 1 ? `g${message.group}, ` : ""}term ${message.term}, ` : "";
  return `${seconds(message.sent)}  ${KINDS[message.kind]}, host ${message.from} → ${message.to}, ${about}${travel}` + (message.text ? "\n" + message.text : "");
}
const SHAPES = { process: "killed", wiped: "killed", start: "start", disk: "disk", fault: "fault", members: "members", snapshot: "snapshot", pause: "pause" };
function paintMarks(ctx) {
  const seen = new Map();
  for (const mark of data.marks) {
    const [t, host, kind, text] = mark;
    if (t < from || t > to) continue;
    const px = x(t), y = host < 0 ? RULER + PHASES + GROUND / 2 : barTop(host) - 9;
    const spot = Math.round(px / 4) + ":" + host + kind;
    if (seen.has(spot)) { seen.get(spot).more.push(mark); continue; }
    const hit = { box: [px - 6, y - 7, 12, 14], more: [], text: () => [`${seconds(t)}  ${host >= 0 ? `host ${host} ` : ""}${text}`, ...hit.more.slice(0, 6).map(([t, , , text]) => `${seconds(t)}  ${text}`), ...(hit.more.length > 6 ? [`and ${hit.more.length - 6} more; zoom in`] : [])].join("\n") };
    seen.set(spot, hit);
    hits.push(hit);
    shape(ctx, SHAPES[kind] || "fault", px, y);
  }
}
function shape(ctx, name, px, y) {
  ctx.lineWidth = 2; ctx.beginPath();
  if (name === "killed") { ctx.strokeStyle = color.bad; ctx.moveTo(px - 4, y - 4); ctx.lineTo(px + 4, y + 4); ctx.moveTo(px + 4, y - 4); ctx.lineTo(px - 4, y + 4); ctx.stroke(); }
  else if (name === "start") { ctx.fillStyle = color.leader; ctx.moveTo(px - 3, y - 5); ctx.lineTo(px + 5, y); ctx.lineTo(px - 3, y + 5); ctx.fill(); }
  else if (name === "pause") { ctx.fillStyle = color.learner; ctx.fillRect(px - 4, y - 5, 3, 10); ctx.fillRect(px + 1, y - 5, 3, 10); }
  else if (name === "disk") { ctx.fillStyle = color.clogged; ctx.fillRect(px - 4, y - 4, 8, 8); }
  else if (name === "members") { ctx.strokeStyle = color.mark; ctx.arc(px, y, 4, 0, 7); ctx.stroke(); }
  else if (name === "snapshot") { ctx.fillStyle = color.snapshot; ctx.moveTo(px, y - 5); ctx.lineTo(px + 5, y); ctx.lineTo(px, y + 5); ctx.lineTo(px - 5, y); ctx.fill(); }
  else { ctx.fillStyle = color.clogged; ctx.moveTo(px, y - 5); ctx.lineTo(px + 5, y + 4); ctx.lineTo(px - 5, y + 4); ctx.fill(); }
}
function paintClients(ctx) {
  const top = clientsTop();
  ctx.textAlign = "left"; ctx.fillStyle = color.text;
  for (let client = 0; client < data.clients; client += 1) {
    const y = top + client * clientRow;
    if (clientRow > 10 || client % 2 === 0) {
      ctx.font = "11px system-ui, sans-serif"; ctx.fillStyle = color.quiet;
      ctx.fillText((width < 560 ? "c" : "client ") + client, 4, y + clientRow / 2);
    }
    ctx.fillStyle = color.lane; ctx.fillRect(gutter, y + clientRow / 2, width - gutter - 8, 1);
  }
  ctx.font = "12px system-ui, sans-serif";
  ctx.save(); ctx.beginPath(); ctx.rect(gutter, 0, width - gutter, height()); ctx.clip();
  for (const op of data.operations) {
    const [client, , group, t, until, isRead, text, answer] = op;
    const stop = until < 0 ? Math.min(end, t + data.patience) : until;
    if (stop < from || t > to) continue;
    const left = x(t), wide = Math.max(x(stop) - left, 2), y = top + client * clientRow + 1, high = clientRow - 3;
    ctx.fillStyle = until < 0 ? color.unknown : isRead ? color.read : color.write;
    ctx.fillRect(left, y, wide, high);
    if (until < 0) { ctx.strokeStyle = color.lost; ctx.lineWidth = 1; ctx.strokeRect(left + 0.5, y + 0.5, Math.max(wide - 1, 1), high - 1); }
    if (wide > 60 && high > 8) { ctx.font = "9.5px system-ui, sans-serif"; ctx.fillStyle = color.panel; clipped(ctx, text, left + 3, y + high / 2 + 0.5, wide - 6); ctx.font = "12px system-ui, sans-serif"; }
    const outcome = until < 0 ? "never answered: it may have happened or not" : `${answer} after ${span(until - t)}`;
    hits.push({ box: [left - 1, y, wide + 2, high], text: () => `${seconds(t)}  client ${client}${data.groups.length > 1 ? `, g${group}` : ""}: ${text}\n${outcome}` });
  }
  ctx.restore();
}
function paintFailure(ctx) {
  if (failedAt === null || failedAt < from || failedAt > to) return;
  const px = x(failedAt);
  ctx.strokeStyle = color.bad; ctx.lineWidth = 2;
  ctx.beginPath(); ctx.moveTo(px, RULER - 2); ctx.lineTo(px, height()); ctx.stroke();
  ctx.font = "600 12px system-ui, sans-serif";
  const wide = ctx.measureText(data.check).width + 14, left = px + wide > width ? px - wide : px;
  ctx.fillStyle = color.bad; ctx.fillRect(left, 1, wide, RULER - 3);
  ctx.fillStyle = color.panel; ctx.textAlign = "left"; ctx.fillText(data.check, left + 7, RULER / 2);
  ctx.font = "12px system-ui, sans-serif";
  hits.push({ box: [left, 0, wide, RULER], text: () => `${seconds(failedAt)}  ${data.check}\n${data.message}` });
}
function paintChosen(ctx) {
  if (!chosen || chosen.t < from || chosen.t > to) return;
  const px = x(chosen.t);
  ctx.strokeStyle = color.focus; ctx.setLineDash([4, 3]); ctx.lineWidth = 1.5;
  ctx.beginPath(); ctx.moveTo(px, RULER); ctx.lineTo(px, height()); ctx.stroke(); ctx.setLineDash([]);
  if (chosen.host >= 0) ctx.strokeRect(px - 9, barTop(chosen.host) - 18, 18, 13 * rows + 22);
}
function paintOverview() {
  const wide = overview.clientWidth, high = 34, ctx = context(overview, wide, high);
  const px = (t) => t / (end * 1.02) * wide;
  const lane = (high - 4) / data.hosts;
  for (let host = 0; host < data.hosts; host += 1) {
    const list = rolesOf.get(host * 1000 + (groupsOf[host][0] || 1)) || [];
    list.forEach(({ t, role }, index) => {
      const until = index + 1 < list.length ? list[index + 1].t : end;
      ctx.fillStyle = roleColor(role); ctx.globalAlpha = role === 0 ? 0.35 : 1;
      ctx.fillRect(px(t), 2 + host * lane, Math.max(px(until) - px(t), 0.6), lane - 1);
    });
    ctx.globalAlpha = 1; ctx.fillStyle = color.panel;
    data.states[host].forEach(([t, state], index, lives) => {
      const until = index + 1 < lives.length ? lives[index + 1][0] : end;
      if (state === 0 && until > t) ctx.fillRect(px(t), 2 + host * lane, Math.max(px(until) - px(t), 0.8), lane - 1);
    });
  }
  if (failedAt !== null) { ctx.fillStyle = color.bad; ctx.fillRect(px(failedAt) - 1, 0, 2, high); }
  ctx.strokeStyle = color.focus; ctx.lineWidth = 2;
  const left = px(from), right = px(to);
  ctx.strokeRect(Math.max(1, left), 1, Math.max(4, Math.min(right, wide) - left - 2), high - 2);
}

// ---- Input ---------------------------------------------------------------------------------
function distance([x1, y1, x2, y2], px, py) {
  const dx = x2 - x1, dy = y2 - y1, length = dx * dx + dy * dy;
  const t = length ? Math.max(0, Math.min(1, ((px - x1) * dx + (py - y1) * dy) / length)) : 0;
  return Math.hypot(px - x1 - t * dx, py - y1 - t * dy);
}
function hitAt(px, py) {
  if (px < gutter) return null;
  let best = null, nearest = 5;
  for (let index = hits.length - 1; index >= 0; index -= 1) {
    const hit = hits[index];
    if (hit.line) { const d = distance(hit.line, px, py); if (d < nearest) { nearest = d; best = hit; } }
  }
  for (let index = hits.length - 1; index >= 0; index -= 1) {
    const box = hits[index].box;
    if (box && px >= box[0] && px <= box[0] + box[2] && py >= box[1] && py <= box[1] + box[3]) {
      if (!best || nearest > 2 || box[2] < 16) best = hits[index];
      break;
    }
  }
  return best;
}
let drag = null;
canvas.addEventListener("pointerdown", (event) => { drag = { x: event.clientX, from, to, moved: false }; canvas.setPointerCapture(event.pointerId); });
canvas.addEventListener("pointermove", (event) => {
  const box = canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
  if (drag) {
    const by = (drag.x - event.clientX) / (width - gutter) * (drag.to - drag.from);
    if (Math.abs(event.clientX - drag.x) > 3) { drag.moved = true; canvas.classList.add("dragging"); look(drag.from + by, drag.to + by); }
    return;
  }
  const hit = hitAt(px, py);
  tip.hidden = !hit;
  if (!hit) return;
  tip.textContent = hit.text();
  tip.style.left = Math.max(0, Math.min(px + 14, box.width - tip.offsetWidth - 4)) + "px";
  tip.style.top = (py + tip.offsetHeight + 24 > box.height ? Math.max(0, py - tip.offsetHeight - 10) : py + 16) + "px";
});
canvas.addEventListener("pointerup", (event) => {
  canvas.classList.remove("dragging");
  const box = canvas.getBoundingClientRect();
  if (drag && !drag.moved) {
    const hit = hitAt(event.clientX - box.left, event.clientY - box.top);
    if (hit) byId("detail").textContent = hit.text();
  }
  drag = null;
});
canvas.addEventListener("pointercancel", () => { drag = null; });
canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
canvas.addEventListener("dblclick", (event) => zoom(0.4, timeAt(event.clientX - canvas.getBoundingClientRect().left)));
canvas.addEventListener("wheel", (event) => {
  if (event.ctrlKey || event.metaKey || document.activeElement === canvas && !event.shiftKey && Math.abs(event.deltaY) > Math.abs(event.deltaX)) {
    event.preventDefault();
    zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 150), timeAt(event.clientX - canvas.getBoundingClientRect().left));
  } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    event.preventDefault();
    pan((event.deltaX || event.deltaY) / width);
  }
}, { passive: false });
const KEYS = {
  ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), ArrowUp: () => zoom(0.6), ArrowDown: () => zoom(1 / 0.6),
  "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), 0: fit, Home: fit, v: failure, End: failure,
  n: () => step(1), p: () => step(-1), Escape: () => { chosen = null; draw(); },
};
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});
function brush(event) {
  const box = overview.getBoundingClientRect(), t = (event.clientX - box.left) / box.width * end * 1.02, half = (to - from) / 2;
  look(t - half, t + half);
}
overview.addEventListener("pointerdown", (event) => { overview.setPointerCapture(event.pointerId); brush(event); });
overview.addEventListener("pointermove", (event) => { if (event.buttons) brush(event); });
byId("in").onclick = () => zoom(0.5);
byId("out").onclick = () => zoom(2);
byId("fit").onclick = fit;
byId("failure").onclick = failure;
byId("failure").hidden = failedAt === null;
byId("earlier").onclick = () => step(-1);
byId("later").onclick = () => step(1);
document.querySelectorAll("[data-t]").forEach((button) => button.addEventListener("click", () => {
  const t = Number(button.dataset.t), wide = Math.min(to - from, Math.max(end / 20, 1e6));
  look(t - wide / 2, t + wide / 2);
  goTo({ t, host: Number(button.dataset.host), kind: "", text: button.dataset.text });
}));
document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", async () => {
  try { await navigator.clipboard.writeText(button.dataset.copy); button.textContent = "copied"; } catch { getSelection().selectAllChildren(button.previousElementSibling); }
}));

// ---- Legend and start ----------------------------------------------------------------------
function legend() {
  const swatch = (name, inner) => `<li><svg width="16" height="12" aria-hidden="true">${inner}</svg>${name}</li>`;
  const box = (name, fill) => swatch(name, `<rect y="1" width="16" height="10" rx="2" fill="${fill}"/>`);
  const line = (name, stroke) => swatch(name, `<path d="M1 11 15 1" stroke="${stroke}" stroke-width="2"/>`);
  byId("legend").innerHTML = box("leader", color.leader) + box("candidate, or a trial", color.candidate) + box("follower", color.follower)
    + box("learner", color.learner) + box("faulted", color.faulted) + box("stands still", color.paused)
    + swatch("down", `<path d="M0 12 10 0M6 12 16 0" stroke="${color.line}" stroke-width="2"/>`)
    + swatch("links cut", `<rect y="4" width="16" height="4" fill="${color.lost}"/>`) + swatch("clogged", `<rect y="4" width="16" height="4" fill="${color.clogged}"/>`)
    + line("vote", color.vote) + line("append", color.append) + line("snapshot", color.snapshot) + line("beat", color.message)
    + swatch("lost", `<path d="M4 2 12 10M12 2 4 10" stroke="${color.lost}" stroke-width="1.5"/>`)
    + swatch("killed", `<path d="M3 1 13 11M13 1 3 11" stroke="${color.bad}" stroke-width="2.5"/>`)
    + swatch("starts", `<path d="M4 1 13 6 4 11z" fill="${color.leader}"/>`)
    + swatch("disk", `<rect x="4" y="2" width="8" height="8" fill="${color.clogged}"/>`)
    + swatch("other fault", `<path d="M8 1 14 11 2 11z" fill="${color.clogged}"/>`)
    + swatch("snapshot built or installed", `<path d="M8 0 14 6 8 12 2 6z" fill="${color.snapshot}"/>`)
    + swatch("members", `<circle cx="8" cy="6" r="4" fill="none" stroke="${color.mark}" stroke-width="2"/>`)
    + box("write", color.write) + box("read", color.read) + box("never answered", color.unknown);
}
function restyle() { readColors(); legend(); draw(); }
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
new ResizeObserver(draw).observe(canvas.parentElement);
restyle();
{ const list = document.querySelector(".story ol"); list.scrollTop = list.scrollHeight; }
if (failedAt !== null && end > 8e6) failure(); else fit();
