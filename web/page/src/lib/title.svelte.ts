// The title of the window: what the page shows, by its name where it has one.

class Title {
  own = $state('');
}

export const title = new Title();

/** Names the page as long as the component that asks for it is there. */
export function titled(text: () => string): void {
  $effect(() => {
    title.own = text();
    return () => {
      title.own = '';
    };
  });
}
