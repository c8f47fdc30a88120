import { Alert, Button, Dialog, DialogActions, DialogContent, DialogTitle, MenuItem, Stack, TextField } from '@mui/material';
import { useState } from 'react';
import type { FormEvent } from 'react';
import { slug } from '../api/resources';

interface CreateDialogProps {
  title: string;
  /** Asks for a project too, out of these. */
  projects?: string[];
  onClose: () => void;
  /** Throws what the server says; the dialog then stays open and shows it. */
  onCreate: (name: string, title: string, project: string) => Promise<void>;
}

/** Asks for a title, shows the name that becomes part of addresses, and creates. */
export function CreateDialog({ title, projects, onClose, onCreate }: CreateDialogProps) {
  const [text, setText] = useState('');
  const [project, setProject] = useState(projects?.[0] ?? '');
  const [error, setError] = useState<string>();
  const [busy, setBusy] = useState(false);
  const name = slug(text);

  async function create(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    try {
      await onCreate(name, text.trim(), project);
      onClose();
    } catch (reason) {
      setError(reason instanceof Error ? reason.message : String(reason));
      setBusy(false);
    }
  }

  return (
    <Dialog open onClose={onClose} fullWidth maxWidth="xs">
      <form onSubmit={(event) => void create(event)}>
        <DialogTitle>{title}</DialogTitle>
        <DialogContent>
          <Stack gap={2} sx={{ pt: 1 }}>
            {error && <Alert severity="error">{error}</Alert>}
            {projects && (
              <TextField select label="Project" value={project} onChange={(e) => setProject(e.target.value)}>
                {projects.map((option) => <MenuItem key={option} value={option}>{option}</MenuItem>)}
              </TextField>
            )}
            <TextField label="Name" value={text} onChange={(e) => setText(e.target.value)} autoFocus required
              helperText={name ? `Address: ${name}` : 'Letters, digits, dots, dashes'} />
          </Stack>
        </DialogContent>
        <DialogActions sx={{ px: 3, pb: 2 }}>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" variant="contained" disabled={busy || !name || (projects !== undefined && !project)}>Create</Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}
