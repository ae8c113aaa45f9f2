'use client';

import { useAuth } from '@session-manager/react';
import { useState, type ReactElement } from 'react';
import { Avatar } from './avatar';
import { Icon } from './icons';

/** Who is signed in, and the way out. */
export function Person(): ReactElement | null {
  const { user, logout } = useAuth();
  const [failed, setFailed] = useState(false);
  if (!user) return null;
  const name = user.name ?? user.id;
  return (
    <div className="person">
      <Avatar name={name} />
      <div className="text">
        <span>{name}</span>
        <small role={failed ? 'alert' : undefined}>{failed ? 'Not signed out: no connection' : user.email}</small>
      </div>
      <button
        type="button"
        className="icon-button"
        title="Sign out"
        onClick={() => {
          logout().catch(() => {
            setFailed(true);
          });
        }}
      >
        <Icon name="signOut" />
        <span className="hidden-visually">Sign out</span>
      </button>
    </div>
  );
}
