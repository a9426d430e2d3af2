// What the interface answers (docs/console.md), and what the page holds.

export interface Row {
  id: number; sequence: number; kind: 'exchange' | 'tunnel' | 'imported';
  started_ms: number; duration_ms: number; wait_ms: number | null; ours_ms: number;
  method: string; scheme: string; host: string; path: string; url: string;
  outcome: 'open' | 'answered' | 'refused' | 'broken'; status: number | null; error: string | null;
  sends: number; own_sends: number; sent_bytes: number; received_bytes: number;
  rule: string | null; credentials: string[]; injected: boolean; content_type: string | null; client: string;
}

export type Header = [name: string, value: string];

export interface Head {
  method?: string; target?: string; status?: number; headers: Header[];
  changes?: { change: 'added' | 'changed' | 'removed'; name: string; value: string }[];
  body_bytes: number; body?: string; body_base64?: string; truncated?: boolean;
}

export interface Raw { base64: string; bytes: number; cut: boolean; masked: boolean }

export interface TokenFacts {
  credential: string | null; from: string | null; issued: string | null; expires: string | null; scope: string | null;
  audience: string[]; header: Record<string, unknown>; claims: Record<string, unknown>;
}

export interface Send {
  kind: 'request' | 'token' | 'connect'; credential?: string; protocol: string | null; target: string | null;
  request: Head | null; interim?: number[]; response: Head | null; at_ms?: number;
  timing?: { dns_ms: number | null; connect_ms: number | null; tls_ms: number | null; wait_ms: number | null; body_ms: number | null };
  injected?: { where: string; name: string }[]; canonical?: { scheme: string; label: string; text: string }[];
  notes?: string[]; error?: string | null; tokens?: TokenFacts[];
  refused?: { credential: string | null; text: string; reasons: { kind: string; text: string }[] } | null;
  peer?: string; reused?: boolean; via?: string | null; tls?: { version: string; suite: string; issuer: string; subject: string } | null;
  raw_out?: Raw; raw_in?: Raw;
}

export interface Considered {
  name: string; file: string; line: number; outcome: string; children: Considered[]; others: number;
  conditions: { condition: string; wanted: string; holds: boolean; note: string | null }[];
}

export interface Explanation {
  rule: { name: string; file: string; line: number; path: string[]; credentials: string[] } | null;
  considered: Considered[]; others: number;
}

export interface Detail {
  id: number; kind: string; started?: string; method: string; url?: string; target?: string | null;
  client?: { address: string | null; name: string | null };
  rule?: { name: string; file: string; line: number; path: string[] } | null; credential?: string[]; environment?: string | null;
  request?: { target: string; protocol: string; headers: Header[] } | null; sends?: Send[];
  response?: { status: number; headers?: Header[]; body_bytes?: number } | null;
  error?: { id: string | null; message: string } | null; notes?: string[]; duration_ms?: number;
  sent_bytes?: number; received_bytes?: number; explanation?: Explanation | null;
}

export interface Rule {
  name: string; file: string; line: number; host: string[]; path: string[]; methods: string[];
  when: { header: Header[]; query: Header[]; client: string[] };
  credentials: string[]; authenticates: boolean; decided: number; rules: Rule[];
}

export interface Rules { rules: Rule[]; files: string[]; generation: number; reload_error: string | null }

export interface Holding {
  credential: string; client?: string; state: string; grant?: string; endpoint?: string; access_token?: string; token_type?: string; scope?: string;
  audience?: string[]; issued?: string; expires?: string; expires_in?: number; refresh_token?: string; id_token?: string;
  bound_to?: string; header?: Record<string, unknown>; claims?: Record<string, unknown>; notes?: string[];
  last_refresh?: string; refreshed?: number; failed?: number; failures?: number; waiters?: number;
}

export interface Login { id: string; credential: string; url: string; code?: string; began: string }

export interface Status {
  proxy: string; console: string; files: string[]; environment: string | null; rules: number; hosts: number;
  generation: number; in_force_since: string; reload_error: string | null; logins: Login[]; exchanges: { total: number };
}

export interface Line { kind: 'row' | 'send' | 'gap'; row: Row; send?: Send; at?: number; gap?: number }

export interface Edit { method: string; url: string; headers: string; body: string }

export interface State {
  view: string; filter: string; filterError: string | null; rows: Row[]; open: Row[]; total: number; notKept: number; bytes: number;
  loaded: boolean; following: boolean; fresh: number; paused: boolean; held: Row[];
  chosen: number | null; detail: Detail | null; detailError: string | null; tab: string; send: number; unfolded: Set<number>;
  other: Detail | null; comparing: boolean; editing: Edit | null; draft: string | null; menu: boolean;
  status: Status | null; rules: Rules | null; tokens: Holding[] | null; token: string | null; asked: string | null; login: Login | null;
  wonder: string; answer: Explanation | null; wonderError: string | null; tool: string;
  lost: string | null; notice: string | null; help: boolean; bodyAs: string; drawn: number;
}
