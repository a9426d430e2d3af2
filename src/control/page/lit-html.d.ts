// Types of the vendored library, as far as the page uses it.
export declare const nothing: unique symbol;
export declare function html(strings: TemplateStringsArray, ...values: unknown[]): object;
export declare function svg(strings: TemplateStringsArray, ...values: unknown[]): object;
export declare function render(value: unknown, container: HTMLElement): unknown;
