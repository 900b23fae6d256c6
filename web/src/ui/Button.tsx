import type { ButtonHTMLAttributes, ReactNode, Ref } from "react";

interface Props extends ButtonHTMLAttributes<HTMLButtonElement> {
  look?: "plain" | "primary" | "quiet" | "danger";
  ref?: Ref<HTMLButtonElement>;
}

export function Button({ look = "plain", className = "", type = "button", ...rest }: Props) {
  return <button type={type} className={`button button-${look} ${className}`} {...rest} />;
}

interface IconProps extends Omit<Props, "aria-label" | "children"> {
  label: string;
  icon: ReactNode;
}

/** A button with a picture alone; its name is there for everybody: spoken, and on hover. */
export function IconButton({ label, icon, look = "quiet", className = "", ...rest }: IconProps) {
  return (
    <Button look={look} aria-label={label} title={label} className={`icon-button ${className}`} {...rest}>
      {icon}
    </Button>
  );
}
