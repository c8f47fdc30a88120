import { useEffect } from 'react';

/** The title of the browser's tab while a page is shown. */
export function useTitle(text: string | undefined): void {
  useEffect(() => {
    document.title = text ? `${text} - Perses` : 'Perses';
  }, [text]);
}
